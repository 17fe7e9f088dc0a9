import { constants, type Stats } from 'node:fs'
import {
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  realpath,
  rename,
  rm,
  rmdir,
  unlink,
} from 'node:fs/promises'
import { join } from 'node:path'
import type { Random } from '../../shared/runtime/random.ts'
import { hasCode, isMissing } from '../private-file.ts'
import { ChecksumCache, type Checksums, Digester } from './checksums.ts'
import { full, Refusal } from './refusal.ts'

/** Whether a new file may take the place of one that is there. */
export type Placement = 'exclusive' | 'replace'

export interface FileTreeOptions {
  readonly directory: string
  /** For files that are still being written: on the same file system, outside the tree. */
  readonly incoming: string
  /** Most bytes that the tree may hold. Without it nothing is counted. */
  readonly quotaBytes: number | undefined
  readonly random: Random
}

/** What lies directly in a directory, without links. */
export interface Listing {
  readonly names: readonly string[]
  /** `undefined` when it is gone since. */
  describe(name: string): Promise<Stats | undefined>
}

const MOST_TRIES = 5

/**
 * The storage's files: the URL's `/` is `directory`. Paths are decoded segments, free of dots and slashes
 * (`parsePath`). Symbolic links that somebody puts into the tree are not followed: they could lead out of it, or out of
 * what a token grants. Whatever lies at or behind one is refused with 403. Reading notices one that comes meanwhile, too;
 * all else looks before it acts, since nobody makes links by HTTP. Errors are those of the file system.
 */
export class FileTree {
  readonly checksums = new ChecksumCache()
  readonly #options: FileTreeOptions
  /** Without links itself, so that every other path below it that resolves to something else has one. */
  readonly #root: string
  /** The directory of this life's uploads in `incoming`. */
  readonly #life: string
  #usedBytes = 0

  private constructor(options: FileTreeOptions, root: string) {
    this.#options = options
    this.#root = root
    this.#life = options.random.uuid()
  }

  static async open(options: FileTreeOptions): Promise<FileTree> {
    await mkdir(options.directory, { recursive: true })
    const tree = new FileTree(options, await realpath(options.directory))
    await mkdir(join(options.incoming, tree.#life), { recursive: true })
    if (options.quotaBytes !== undefined) tree.#usedBytes = await bytesBelow(tree.#root)
    return tree
  }

  /**
   * Removes what uploads of earlier lives left behind. Only for who holds the port: another life may still be going
   * on.
   */
  async sweep(): Promise<void> {
    const { incoming } = this.#options
    const lives = (await readdir(incoming)).filter(life => life !== this.#life)
    for (const life of lives) await rm(join(incoming, life), { recursive: true })
  }

  async stat(path: readonly string[]): Promise<Stats | undefined> {
    return statOf(await this.#reach(path))
  }

  /** Throws 409 when the file, or what is on the way to it, is replaced again and again meanwhile. */
  async openFile(path: readonly string[]): Promise<FileHandle> {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const file = await this.#reach(path)
      const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW)
      // A link that was put on the way since `#reach` looked has led elsewhere.
      if ((await placeOf(handle, file)) === file) return handle
      await handle.close()
    }
    throw new Refusal(409, `/${path.join('/')} is being replaced: ask again`)
  }

  checksumsOf(path: readonly string[], stats: Stats): Promise<Checksums> {
    return this.checksums.of(() => this.openFile(path), stats)
  }

  async list(path: readonly string[]): Promise<Listing> {
    const directory = await this.#reach(path)
    const entries = await readdir(directory, { withFileTypes: true })
    return {
      names: entries.filter(entry => !entry.isSymbolicLink()).map(({ name }) => name),
      describe: async name => {
        const stats = await statOf(join(directory, name))
        return stats?.isSymbolicLink() ? undefined : stats
      },
    }
  }

  /** RFC 4918 section 9.3: the parent must be there (ENOENT) and the directory not (EEXIST). */
  async makeDirectory(path: readonly string[]): Promise<void> {
    await mkdir(await this.#reach(path))
  }

  /** The directory and its parents, as far as they are missing. */
  async makeDirectories(path: readonly string[]): Promise<void> {
    await mkdir(await this.#reach(path), { recursive: true })
  }

  async removeFile(path: readonly string[], stats: Stats): Promise<void> {
    await unlink(await this.#reach(path))
    this.release(stats.size)
  }

  /** Only when it is empty (ENOTEMPTY), as dCache does: a DELETE never takes a whole tree along. */
  async removeDirectory(path: readonly string[]): Promise<void> {
    await rmdir(await this.#reach(path))
  }

  /** Throws EEXIST when `exclusive` and `to` is taken. */
  async move(from: readonly string[], to: readonly string[], placement: Placement): Promise<void> {
    await this.adopt(await this.#reach(from), to, placement)
  }

  /** Gives a file or directory from anywhere on this file system its place in the tree, as `move` does. */
  async adopt(from: string, to: readonly string[], placement: Placement): Promise<void> {
    const replaced = placement === 'replace' ? await this.stat(to) : undefined
    await place(from, await this.#reach(to), placement)
    this.release(replaced?.isFile() ? replaced.size : 0)
  }

  /** Gives a file that is still being written a second name, in the tree; `replace` takes away what had it. */
  async show(draft: string, to: readonly string[], placement: Placement): Promise<void> {
    const replaced = placement === 'replace' ? await this.stat(to) : undefined
    if (replaced?.isFile()) await this.removeFile(to, replaced)
    await link(draft, await this.#reach(to))
  }

  /** Takes a name away from a file that keeps another. Nothing happens when it is gone already. */
  async hide(path: readonly string[]): Promise<void> {
    await rm(await this.#reach(path), { force: true })
  }

  async beginUpload(): Promise<Upload> {
    const draft = join(this.#options.incoming, this.#life, this.#options.random.uuid())
    return new Upload(this, draft, await open(draft, 'wx'))
  }

  /** Where a path is on disk, whether something is there or not. Throws 403 when a link is on the way, or there. */
  async #reach(path: readonly string[]): Promise<string> {
    const file = join(this.#root, ...path)
    try {
      if ((await realpath(file)) === file) return file
    } catch (error) {
      if (!hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error
      // Something is missing: here, or where a link leads.
      if (!(await this.#hasLink(path))) return file
    }
    throw new Refusal(403, `a symbolic link is on the way to /${path.join('/')}: links are not followed here`)
  }

  async #hasLink(path: readonly string[]): Promise<boolean> {
    let at = this.#root
    for (const segment of path) {
      at = join(at, segment)
      const stats = await statOf(at)
      if (stats === undefined || stats.isSymbolicLink()) return stats !== undefined
      if (!stats.isDirectory()) return false
    }
    return false
  }

  /** Throws 507 when so many bytes more would pass the quota. */
  demandRoom(bytes: number): void {
    const { quotaBytes } = this.#options
    if (quotaBytes !== undefined && this.#usedBytes + bytes > quotaBytes) {
      throw full(`quota exceeded: only ${quotaBytes} bytes fit`)
    }
  }

  /** Counts bytes before they are written. Throws 507 beyond the quota. */
  reserve(bytes: number): void {
    this.demandRoom(bytes)
    if (this.#options.quotaBytes !== undefined) this.#usedBytes += bytes
  }

  release(bytes: number): void {
    if (this.#options.quotaBytes !== undefined) this.#usedBytes -= bytes
  }
}

/** A file on its way in. It ends with one `commit` or one `discard`. */
export class Upload {
  readonly #tree: FileTree
  readonly #draft: string
  readonly #handle: FileHandle
  readonly #digester = new Digester()
  #bytes = 0
  /** Where it can be seen already. */
  #shown: readonly string[] | undefined

  constructor(tree: FileTree, draft: string, handle: FileHandle) {
    this.#tree = tree
    this.#draft = draft
    this.#handle = handle
  }

  get bytes(): number {
    return this.#bytes
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#tree.reserve(chunk.length)
    this.#bytes += chunk.length
    this.#digester.update(chunk)
    await this.#handle.writeFile(chunk)
  }

  /** The file has its name from now on, whatever becomes of it. Throws EEXIST when `exclusive` and the name is taken. */
  async show(path: readonly string[], placement: Placement): Promise<void> {
    try {
      await this.#tree.show(this.#draft, path, placement)
      this.#shown = path
    } catch (error) {
      await this.discard()
      throw error
    }
  }

  /** The file appears whole, under its name, or not at all. Throws EEXIST when `exclusive` and the name is taken. */
  async commit(path: readonly string[], placement: Placement): Promise<void> {
    try {
      const stats = await this.#handle.stat()
      if (this.#shown === undefined) await this.#tree.adopt(this.#draft, path, placement)
      else await unlink(this.#draft)
      this.#tree.checksums.remember(stats, this.#digester.finish())
    } catch (error) {
      await this.discard()
      throw error
    }
    await this.#handle.close()
  }

  async discard(): Promise<void> {
    await this.#handle.close()
    await unlink(this.#draft)
    if (this.#shown !== undefined) await this.#tree.hide(this.#shown)
    this.#tree.release(this.#bytes)
  }
}

async function statOf(file: string): Promise<Stats | undefined> {
  try {
    return await lstat(file)
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

/** Where the file that was opened lies now, as Linux tells it; elsewhere where it was looked for. */
async function placeOf(handle: FileHandle, file: string): Promise<string> {
  try {
    return await readlink(`/proc/self/fd/${handle.fd}`)
  } catch {
    return file
  }
}

/**
 * A file goes by link(2), since rename(2) replaces silently; a directory can't, and rename(2) replaces only empty
 * ones.
 */
async function place(from: string, to: string, placement: Placement): Promise<void> {
  if (placement === 'replace' || (await lstat(from)).isDirectory()) return rename(from, to)
  await link(from, to)
  await unlink(from)
}

async function bytesBelow(directory: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) bytes += (await lstat(join(entry.parentPath, entry.name))).size
  }
  return bytes
}
