import type { Dirent, Stats } from 'node:fs'
import { type FileHandle, link, mkdir, open, readdir, rename, rm, rmdir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Random } from '../../shared/runtime/random.ts'
import { isMissing } from '../private-file.ts'
import { ChecksumCache, type Checksums, Digester } from './checksums.ts'
import { Refusal } from './refusal.ts'

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

/**
 * The storage's files: the URL's `/` is `directory`. Paths are decoded segments, free of dots and slashes
 * (`parsePath`), and WebDAV makes no symbolic links, so no path leads out of it. Errors are those of the file system.
 */
export class FileTree {
  readonly checksums = new ChecksumCache()
  readonly #options: FileTreeOptions
  /** The directory of this life's uploads in `incoming`. */
  readonly #life: string
  #usedBytes = 0

  private constructor(options: FileTreeOptions) {
    this.#options = options
    this.#life = options.random.uuid()
  }

  static async open(options: FileTreeOptions): Promise<FileTree> {
    const tree = new FileTree(options)
    await mkdir(options.directory, { recursive: true })
    await mkdir(join(options.incoming, tree.#life), { recursive: true })
    if (options.quotaBytes !== undefined) tree.#usedBytes = await bytesBelow(options.directory)
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

  locate(path: readonly string[]): string {
    return join(this.#options.directory, ...path)
  }

  async stat(path: readonly string[]): Promise<Stats | undefined> {
    try {
      return await stat(this.locate(path))
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
  }

  openFile(path: readonly string[]): Promise<FileHandle> {
    return open(this.locate(path), 'r')
  }

  checksumsOf(path: readonly string[], stats: Stats): Promise<Checksums> {
    return this.checksums.of(this.locate(path), stats)
  }

  list(path: readonly string[]): Promise<Dirent[]> {
    return readdir(this.locate(path), { withFileTypes: true })
  }

  /** RFC 4918 section 9.3: the parent must be there (ENOENT) and the directory not (EEXIST). */
  async makeDirectory(path: readonly string[]): Promise<void> {
    await mkdir(this.locate(path))
  }

  /** The directory and its parents, as far as they are missing. */
  async makeDirectories(path: readonly string[]): Promise<void> {
    await mkdir(this.locate(path), { recursive: true })
  }

  async removeFile(path: readonly string[], stats: Stats): Promise<void> {
    await unlink(this.locate(path))
    this.release(stats.size)
  }

  /** Only when it is empty (ENOTEMPTY), as dCache does: a DELETE never takes a whole tree along. */
  async removeDirectory(path: readonly string[]): Promise<void> {
    await rmdir(this.locate(path))
  }

  /** Throws EEXIST when `exclusive` and `to` is taken. */
  async move(from: readonly string[], to: readonly string[], placement: Placement): Promise<void> {
    await this.adopt(this.locate(from), to, placement)
  }

  /** Gives a file or directory from anywhere on this file system its place in the tree, as `move` does. */
  async adopt(from: string, to: readonly string[], placement: Placement): Promise<void> {
    const replaced = placement === 'replace' ? await this.stat(to) : undefined
    await place(from, this.locate(to), placement)
    this.release(replaced?.isFile() ? replaced.size : 0)
  }

  async beginUpload(): Promise<Upload> {
    const draft = join(this.#options.incoming, this.#life, this.#options.random.uuid())
    return new Upload(this, draft, await open(draft, 'wx'))
  }

  /** Throws 507 when so many bytes more would pass the quota. */
  demandRoom(bytes: number): void {
    const { quotaBytes } = this.#options
    if (quotaBytes !== undefined && this.#usedBytes + bytes > quotaBytes) {
      throw new Refusal(507, `the quota of ${quotaBytes} bytes is used up`)
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

  /** The file appears whole, under its name, or not at all. Throws EEXIST when `exclusive` and the name is taken. */
  async commit(path: readonly string[], placement: Placement): Promise<void> {
    try {
      const stats = await this.#handle.stat()
      await this.#tree.adopt(this.#draft, path, placement)
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
    this.#tree.release(this.#bytes)
  }
}

/**
 * A file goes by link(2), since rename(2) replaces silently; a directory can't, and rename(2) replaces only empty
 * ones.
 */
async function place(from: string, to: string, placement: Placement): Promise<void> {
  if (placement === 'replace' || (await stat(from)).isDirectory()) return rename(from, to)
  await link(from, to)
  await unlink(from)
}

async function bytesBelow(directory: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size
  }
  return bytes
}
