import type { GgufVocabulary } from '../gguf.ts';

/** A stretch of a text: a special token, or plain text where `token` is -1. */
export interface Fragment {
  start: number;
  end: number;
  token: number;
}

interface Special {
  text: string;
  token: number;
  /** Found in a text even where special tokens are not asked for. */
  always: boolean;
  /** Swallows the white space behind it. */
  strips_right: boolean;
}

interface TrieNode {
  special?: Special;
  next: Map<number, TrieNode>;
}

const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

/** Tokens that end a generation: llama.cpp takes them for control tokens whatever the file says. */
const ENDS = new Set(
  (
    '<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> ' +
    '<|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> ' +
    '<｜end▁of▁sentence｜> [e~['
  ).split(' '),
);
/** Tokens that llama.cpp finds in every text. */
const RENDERED = new Set('<|channel|> <|message|> <|start|> <|constrain|>'.split(' '));
/** Fill-in-the-middle tokens by the names a file may give them; without a name they are found by their text. */
const FILL_INS: readonly [names: string, texts: string][] = [
  [
    'fim_pre prefix',
    '<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>',
  ],
  [
    'fim_suf suffix',
    '<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>',
  ],
  [
    'fim_mid middle',
    '<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>',
  ],
  ['fim_pad', '<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]'],
  ['fim_rep', '<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>'],
  ['fim_sep', '<|file_sep|>'],
];

/** The tokens that are looked for in a text before anything else, longest first. */
export class SpecialTokens {
  readonly #ordered: readonly Special[];
  readonly #trie: TrieNode = { next: new Map() };

  private constructor(specials: readonly Special[]) {
    const size = (special: Special): number => Buffer.byteLength(special.text);
    this.#ordered = [...specials].sort((a, b) => size(b) - size(a));
    for (const special of specials) {
      let node = this.#trie;
      for (let at = 0; at < special.text.length; at += 1) {
        const unit = special.text.charCodeAt(at);
        const next: TrieNode = node.next.get(unit) ?? { next: new Map() };
        node.next.set(unit, next);
        node = next;
      }
      node.special = special;
    }
  }

  /**
   * Sorts out which tokens of a vocabulary are special, corrections of mislabelled files included.
   * @returns undefined where llama.cpp's own answer depends on the order of a hash table, or strips on the left.
   */
  static of(vocabulary: GgufVocabulary, ids: ReadonlyMap<string, number>): SpecialTokens | undefined {
    const kinds = (vocabulary.types ?? []).slice(0, vocabulary.tokens.length);
    const becomes = (text: string, kind: number): void => {
      const id = ids.get(text);
      if (id !== undefined) kinds[id] = kind;
    };
    for (const [names, texts] of FILL_INS) {
      if (names.split(' ').some((name) => vocabulary.named_tokens.has(name))) continue;
      const found = texts.split(' ').filter((text) => ids.has(text));
      const mislabelled = found.filter((text) => kinds[ids.get(text) ?? -1] !== CONTROL);
      if (mislabelled.length > 0 && found.length > 1) return undefined;
      for (const text of mislabelled) becomes(text, CONTROL);
    }
    for (const text of ENDS) becomes(text, CONTROL);
    for (const text of RENDERED) becomes(text, USER_DEFINED);
    const any = (...texts: string[]): boolean => texts.some((text) => ids.has(text));
    if (any('<|return|>', '<|flush|>') && any('<|call|>', '<|calls|>')) becomes('<|end|>', USER_DEFINED);
    if (any('<|tool_response>')) becomes('</s>', 1);
    const name = (vocabulary.model_name ?? '').toLowerCase();
    if (name.includes('modern-bert') || /nomic-bert-moe|jina-bert-v3/.test(vocabulary.architecture)) {
      return undefined;
    }
    const strips = name.includes('phi-3') || name.includes('phi3');
    const keeps_blank = new Set(['<unk>', '<s>', '<|endoftext|>']);
    const specials: Special[] = [];
    for (const [text, token] of ids) {
      const kind = kinds[token];
      if (kind !== UNKNOWN && kind !== CONTROL && kind !== USER_DEFINED) continue;
      const strips_right = strips && !keeps_blank.has(text);
      specials.push({ text, token, always: kind === USER_DEFINED, strips_right });
    }
    return new SpecialTokens(specials);
  }

  /**
   * Cuts a text at its special tokens. A longer token takes its places before a shorter one looks.
   * @param all false leaves only the tokens that are found in every text.
   */
  partition(text: string, all: boolean): Fragment[] {
    let fragments: Fragment[] = text === '' ? [] : [{ start: 0, end: text.length, token: -1 }];
    const present = this.#present(text);
    for (const special of this.#ordered) {
      if (present.has(special) && (all || special.always)) fragments = cut(text, fragments, special);
    }
    return fragments;
  }

  /** One pass that tells which tokens occur at all: most of the hundreds never do. */
  #present(text: string): Set<Special> {
    const found = new Set<Special>();
    for (let start = 0; start < text.length; start += 1) {
      let node = this.#trie.next.get(text.charCodeAt(start));
      for (let at = start + 1; node !== undefined; at += 1) {
        if (node.special !== undefined) found.add(node.special);
        node = at < text.length ? node.next.get(text.charCodeAt(at)) : undefined;
      }
    }
    return found;
  }
}

function cut(text: string, fragments: readonly Fragment[], special: Special): Fragment[] {
  const out: Fragment[] = [];
  let match = -1;
  for (const fragment of fragments) {
    let { start } = fragment;
    // The search runs on through the whole text, so that many fragments do not each search the rest of it.
    while (fragment.token < 0 && start < fragment.end) {
      if (match < start) match = indexOf(text, special.text, start);
      const stop = match + special.text.length;
      if (stop > fragment.end) break;
      if (match > start) out.push({ start, end: match, token: -1 });
      out.push({ start: match, end: stop, token: special.token });
      start = stop;
      while (special.strips_right && start < fragment.end && isBlank(text.charCodeAt(start))) start += 1;
    }
    if (fragment.token >= 0) out.push(fragment);
    else if (start < fragment.end) out.push({ start, end: fragment.end, token: -1 });
  }
  return out;
}

function indexOf(text: string, part: string, start: number): number {
  const found = text.indexOf(part, start);
  return found < 0 ? Infinity : found;
}

function isBlank(unit: number): boolean {
  return unit === 32 || (unit >= 9 && unit <= 13);
}
