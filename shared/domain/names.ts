import { WaybillError } from './errors.ts'

/**
 * What may be called how (facts/rules.md, "Names"). Names become paths and paths become token scopes, so dot segments, empty
 * segments and everything that needs quoting are refused here, once, at the edge. All limits are in characters.
 */
export type NameKind = 'vo' | 'scope' | 'did' | 'account' | 'rse' | 'attribute' | 'activity'

interface NameRule {
  called: string
  longest: number
  /** A set of single characters, tested one by one: no input makes it slow. */
  character: RegExp
  characters: string
  /** What else can be wrong, once the characters are right. */
  shape?: (value: string) => string | undefined
}

const RULES: Record<NameKind, NameRule> = {
  vo: { called: 'VO', longest: 64, character: /[a-z0-9._-]/, characters: 'a-z, 0-9, ".", "_", "-"' },
  scope: {
    called: 'scope',
    longest: 25,
    character: /[A-Za-z0-9._-]/,
    characters: 'A-Z, a-z, 0-9, ".", "_", "-"',
    shape: scopeShape,
  },
  did: {
    called: 'DID name',
    longest: 250,
    character: /[A-Za-z0-9/._-]/,
    characters: 'A-Z, a-z, 0-9, "/", ".", "_", "-"',
    shape: didNameShape,
  },
  account: { called: 'account', longest: 25, character: /[a-z0-9_-]/, characters: 'a-z, 0-9, "_", "-"' },
  rse: { called: 'RSE name', longest: 255, character: /[A-Z0-9_-]/, characters: 'A-Z, 0-9, "_", "-"' },
  // What an RSE expression can write.
  attribute: {
    called: 'attribute',
    longest: 255,
    character: /[A-Za-z0-9._-]/,
    characters: 'A-Z, a-z, 0-9, ".", "_", "-"',
  },
  activity: {
    called: 'activity',
    longest: 50,
    character: /[A-Za-z0-9 ._-]/,
    characters: 'A-Z, a-z, 0-9, a space, ".", "_", "-"',
    shape: value => (value !== value.trim() ? 'activity must not begin or end with a space' : undefined),
  },
}

/** `undefined` when `value` is a good name of its kind, else the sentence that says why not. */
export function checkName(kind: NameKind, value: string): string | undefined {
  const rule = RULES[kind]
  if (value === '') return `${rule.called} must not be empty`
  if (value.length > rule.longest) {
    return `${rule.called} has ${value.length} characters; at most ${rule.longest} are allowed`
  }
  const characters = [...value]
  const wrong = characters.findIndex(character => !rule.character.test(character))
  if (wrong >= 0) {
    return `${rule.called} has ${describe(characters[wrong] ?? '')} at position ${wrong + 1}; allowed are ${rule.characters}`
  }
  return rule.shape?.(value)
}

/** The `hash` layout turns the dots of some scopes into slashes, so a scope must stay a path without empty or dot segments. */
function scopeShape(value: string): string | undefined {
  if (value.split('.').every(part => part !== '')) return undefined
  return 'scope must not begin or end with a dot nor have two dots in a row'
}

function didNameShape(value: string): string | undefined {
  if (value.endsWith('/')) return 'DID name must not end with a slash'
  if (/^[._-]/.test(value)) return 'DID name must begin with a letter, a digit or a slash'
  // CMS names begin with one slash: that one makes no empty segment.
  const segments = (value.startsWith('/') ? value.slice(1) : value).split('/')
  if (segments.includes('')) return 'DID name must not have an empty segment (two slashes in a row)'
  if (segments.some(segment => segment === '.' || segment === '..')) {
    return 'DID name must not have a segment "." or ".."'
  }
  return undefined
}

function describe(character: string): string {
  const code = character.codePointAt(0) ?? 0
  if (/\s/.test(character)) return `white space (U+${hex(code)})`
  if (code < 0x20 || code === 0x7f) return `a control character (U+${hex(code)})`
  if (code > 0x7e) return `a character that is not ASCII (U+${hex(code)})`
  return `the character ${JSON.stringify(character)}`
}

const hex = (code: number): string => code.toString(16).toUpperCase().padStart(4, '0')

export interface Did {
  scope: string
  name: string
}

/** Reads `scope:name`. Throws 400 NAME_INVALID with `field` when there is no colon, or scope or name is not a good one. */
export function parseDid(text: string, field = 'did'): Did {
  const colon = text.indexOf(':')
  if (colon < 0) throw invalidDid('a DID is written scope:name; there is no colon in it', field)
  const did = { scope: text.slice(0, colon), name: text.slice(colon + 1) }
  const reason = checkName('scope', did.scope) ?? checkName('did', did.name)
  if (reason !== undefined) throw invalidDid(reason, field)
  return did
}

export function formatDid(did: Did): string {
  return `${did.scope}:${did.name}`
}

function invalidDid(reason: string, field: string): WaybillError {
  return new WaybillError('NAME_INVALID', reason, { status: 400, field })
}
