import { Inexact, flag, list, part, text, tokenId } from './inexact.ts';

interface Added {
  content: string;
  id: number;
  special: boolean;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
}

interface TrieNode {
  added?: Added;
  next: Map<number, TrieNode>;
}

/** Receives stretches in order: `id` is -1 where it is plain text. */
type Stretch = (start: number, end: number, id: number) => void;

const BLANKS_AT_START = /^\p{White_Space}*/u;
const BLANK = /\p{White_Space}/u;

/** Tokens that are looked for in a text before a model sees it: at each place the longest that stands there. */
export class AddedTokens {
  readonly #trie: TrieNode = { next: new Map() };

  /** @param tokens with what they look like in the text that is searched */
  constructor(tokens: readonly Added[]) {
    for (const added of tokens) {
      let node = this.#trie;
      for (let at = 0; at < added.content.length; at += 1) {
        const unit = added.content.charCodeAt(at);
        const next: TrieNode = node.next.get(unit) ?? { next: new Map() };
        node.next.set(unit, next);
        node = next;
      }
      if (node !== this.#trie) node.added = added;
    }
  }

  /** Cuts a text at the tokens; those that are special stay text where `specials` is false. */
  cut(whole: string, specials: boolean, stretch: Stretch): void {
    let from = 0;
    for (let at = 0; at < whole.length;) {
      const added = this.#longestAt(whole, at);
      if (added === undefined) {
        at += 1;
        continue;
      }
      const found = at;
      at += added.content.length;
      if (added.special && !specials) continue;
      if (added.single_word && !standsAlone(whole, found, at)) continue;
      const start = added.lstrip ? Math.max(blanksBefore(whole, found), from) : found;
      const end = added.rstrip ? at + (BLANKS_AT_START.exec(whole.slice(at))?.[0].length ?? 0) : at;
      if (from < start) stretch(from, start, -1);
      stretch(start, end, added.id);
      from = end;
    }
    if (from < whole.length) stretch(from, whole.length, -1);
  }

  #longestAt(whole: string, start: number): Added | undefined {
    let found: Added | undefined;
    let node = this.#trie.next.get(whole.charCodeAt(start));
    for (let at = start + 1; node !== undefined; at += 1) {
      if (node.added !== undefined) found = node.added;
      node = at < whole.length ? node.next.get(whole.charCodeAt(at)) : undefined;
    }
    return found;
  }
}

/**
 * The `added_tokens` of a tokenizer.json: those that stand in the text as it came, and those that stand in it once it
 * is normalized.
 * @param idOf the id of a token that the model has already
 * @throws Inexact
 */
export function addedTokensOf(
  value: unknown,
  normalize: (text: string) => string,
  idOf: (token: string) => number | undefined,
): { raw: AddedTokens; normalized: AddedTokens } {
  const raw: Added[] = [];
  const normalized: Added[] = [];
  for (const entry of list(value ?? [])) {
    const settings = part(entry);
    const added: Added = {
      content: text(settings['content']),
      id: tokenId(settings['id']),
      special: flag(settings, 'special', false),
      single_word: flag(settings, 'single_word', false),
      lstrip: flag(settings, 'lstrip', false),
      rstrip: flag(settings, 'rstrip', false),
    };
    if (!added.content.isWellFormed()) throw new Inexact('a token that is no text');
    if ((idOf(added.content) ?? added.id) !== added.id) throw new Inexact('a token with two ids');
    if (flag(settings, 'normalized', !added.special)) {
      normalized.push({ ...added, content: normalize(added.content) });
    } else raw.push(added);
  }
  return { raw: new AddedTokens(raw), normalized: new AddedTokens(normalized) };
}

/** What a word is differs between Unicode versions: outside of ASCII it cannot be told exactly. */
function standsAlone(whole: string, start: number, end: number): boolean {
  const sides = [whole.charAt(start - 1), whole.charAt(end)];
  if (sides.some((side) => side > '\u007f'))
    throw new Inexact('a token beside a character that may be a word');
  return !sides.some((side) => /\w/.test(side));
}

function blanksBefore(whole: string, end: number): number {
  let start = end;
  while (start > 0 && BLANK.test(whole.charAt(start - 1))) start -= 1;
  return start;
}
