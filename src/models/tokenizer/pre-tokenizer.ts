import { LETTER, NUMBER, OTHER, PUNCTUATION, SPACE, unicodeClasses } from './unicode-classes.ts';

/** Receives the pieces of a text one after the other, as offsets into it; together they cover the text. */
type PieceSink = (start: number, end: number) => void;

/** Cuts `text[start, end)` into the pieces within which tokens may grow. The text is well formed UTF-16. */
type PreTokenizer = (text: string, start: number, end: number, sink: PieceSink) => void;

/** How a named pre-tokenizer behaves in llama.cpp beyond its cuts. */
export interface PreTokenizerTraits {
  split: PreTokenizer;
  /** A piece that is a token is taken whole, whatever the merges say. */
  ignore_merges: boolean;
  /** Whether BOS is put in front where the file does not say. */
  add_bos: boolean;
  /** Whether a file that names no BOS has one all the same. */
  default_bos: boolean;
}

const FAMILIES: readonly [names: string, traits: Partial<PreTokenizerTraits> & { split: PreTokenizer }][] = [
  ['default', { split: splitDefault }],
  [
    'gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat mellum a.x-4.0',
    { split: splitGpt2 },
  ],
  ['smollm starcoder refact command-r codeshell exaone minerva-7b mellum2', { split: splitDigitsThenGpt2 }],
  [
    'llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2',
    { split: splitLlama3, ignore_merges: true, add_bos: true },
  ],
  ['dbrx smaug-bpe', { split: splitLlama3 }],
  ['chatglm-bpe glm4', { split: splitLlama3, default_bos: false }],
  ['qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan solar-open grok-2 kormo f2llmv2', { split: splitQwen2 }],
];

const BY_NAME = new Map(
  FAMILIES.flatMap(([names, traits]) =>
    names
      .split(' ')
      .map((name) => [name, { ignore_merges: false, add_bos: false, default_bos: true, ...traits }] as const),
  ),
);

/**
 * The pre-tokenizer that a GGUF file names in `tokenizer.ggml.pre`.
 * @param name `default` where the file names none, as llama.cpp has it.
 * @returns undefined for a name whose rules are not known here.
 */
export function preTokenizer(name = 'default'): PreTokenizerTraits | undefined {
  return BY_NAME.get(name);
}

const LF = 10;
const CR = 13;
const BLANK = 32;
const APOSTROPHE = 39;

/** The class of the character at `at`; 0 past the end, so that it is of no class. */
function classAt(text: string, at: number, end: number, classes: Uint8Array): number {
  if (at >= end) return 0;
  const unit = text.charCodeAt(at);
  const point = unit >= 0xd800 && unit < 0xdc00 ? (text.codePointAt(at) ?? unit) : unit;
  return classes[point] ?? OTHER;
}

function widthAt(text: string, at: number): number {
  const unit = text.charCodeAt(at);
  return unit >= 0xd800 && unit < 0xdc00 ? 2 : 1;
}

/** Where a run of characters of the class ends, `limit` characters at most. */
function runEnd(
  text: string,
  start: number,
  end: number,
  mask: number,
  classes: Uint8Array,
  limit = Infinity,
): number {
  let at = start;
  let left = limit;
  while (left > 0 && (classAt(text, at, end, classes) & mask) !== 0) {
    at += widthAt(text, at);
    left -= 1;
  }
  return at;
}

/** The length of an English contraction (`'s`, `'ll`) at an apostrophe, else 0. */
function contraction(text: string, at: number, end: number, any_case: boolean): number {
  const tail = text.slice(at + 1, Math.min(at + 3, end));
  const folded = any_case ? tail.replace(/[A-Z]/g, (letter) => letter.toLowerCase()) : tail;
  if (/^[stmd]/.test(folded)) return 2;
  return folded === 're' || folded === 've' || folded === 'll' ? 3 : 0;
}

/** A run of white space leaves its last character to the word behind it. */
function blankEnd(start: number, run_end: number, end: number): number {
  return run_end - start > 1 && run_end < end ? run_end - 1 : run_end;
}

function splitGpt2(text: string, start: number, end: number, sink: PieceSink): void {
  const classes = unicodeClasses();
  for (let at = start; at < end;) {
    const piece = at;
    const unit = text.charCodeAt(at);
    const short = unit === APOSTROPHE ? contraction(text, at, end, false) : 0;
    const body = unit === BLANK ? at + 1 : at;
    const kind = classAt(text, body, end, classes) & (LETTER | NUMBER | OTHER);
    if (short > 0) at += short;
    else if (kind !== 0) at = runEnd(text, body, end, kind, classes);
    else at = blankEnd(at, runEnd(text, at, end, SPACE, classes), end);
    sink(piece, at);
  }
}

/** The rules of Llama 3 and Qwen 2, which differ in how many digits make a piece. */
function splitModern(text: string, start: number, end: number, sink: PieceSink, digits: number): void {
  const classes = unicodeClasses();
  for (let at = start; at < end;) {
    const piece = at;
    at = modernEnd(text, at, end, digits, classes);
    sink(piece, at);
  }
}

function modernEnd(text: string, at: number, end: number, digits: number, classes: Uint8Array): number {
  const unit = text.charCodeAt(at);
  const short = unit === APOSTROPHE ? contraction(text, at, end, true) : 0;
  if (short > 0) return at + short;
  const kind = classAt(text, at, end, classes);
  if ((kind & NUMBER) !== 0) return runEnd(text, at, end, NUMBER, classes, digits);
  const letters = (kind & LETTER) !== 0 ? at : at + widthAt(text, at);
  if (unit !== CR && unit !== LF && (classAt(text, letters, end, classes) & LETTER) !== 0) {
    return runEnd(text, letters, end, LETTER, classes);
  }
  const body = unit === BLANK ? at + 1 : at;
  if ((classAt(text, body, end, classes) & OTHER) !== 0) {
    let stop = runEnd(text, body, end, OTHER, classes);
    while (stop < end && isLineBreak(text, stop)) stop += 1;
    return stop;
  }
  const run_end = runEnd(text, at, end, SPACE, classes);
  for (let stop = run_end; stop > at; stop -= 1) if (isLineBreak(text, stop - 1)) return stop;
  return blankEnd(at, run_end, end);
}

function isLineBreak(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  return unit === CR || unit === LF;
}

function splitLlama3(text: string, start: number, end: number, sink: PieceSink): void {
  splitModern(text, start, end, sink, 3);
}

function splitQwen2(text: string, start: number, end: number, sink: PieceSink): void {
  splitModern(text, start, end, sink, 1);
}

/** Cuts out what `matchEnd` recognises and hands the stretches between to `rest`. */
function isolate(
  text: string,
  start: number,
  end: number,
  matchEnd: (at: number) => number,
  sink: PieceSink,
  rest: PreTokenizer,
): void {
  let rest_start = start;
  for (let at = start; at < end;) {
    const stop = matchEnd(at);
    if (stop === at) {
      at += widthAt(text, at);
      continue;
    }
    if (at > rest_start) rest(text, rest_start, at, sink);
    sink(at, stop);
    at = stop;
    rest_start = stop;
  }
  if (rest_start < end) rest(text, rest_start, end, sink);
}

function splitDigitsThenGpt2(text: string, start: number, end: number, sink: PieceSink): void {
  const classes = unicodeClasses();
  isolate(text, start, end, (at) => runEnd(text, at, end, NUMBER, classes, 1), sink, splitGpt2);
}

function splitDefault(text: string, start: number, end: number, sink: PieceSink): void {
  const classes = unicodeClasses();
  const marks = (at: number): number => {
    let stop = at;
    while (
      (classAt(text, stop, end, classes) & PUNCTUATION) !== 0 ||
      (stop < end && '$+<=>^~|'.includes(text.charAt(stop)))
    ) {
      stop += widthAt(text, stop);
    }
    return stop;
  };
  const splitNumbers: PieceSink = (from, to) =>
    isolate(text, from, to, (at) => runEnd(text, at, to, NUMBER, classes), cutTriples, pass);
  const cutTriples: PieceSink = (from, to) =>
    isolate(text, from, to, (at) => (isTriple(text, at, to) ? at + 3 : at), sink, pass);
  const pass: PreTokenizer = (_text, from, to, next) => next(from, to);
  // A piece of marks alone holds no letter, digit or blank: the later rules leave it whole.
  isolate(text, start, end, marks, sink, (_text, from, to) => splitGpt2(text, from, to, splitNumbers));
}

function isTriple(text: string, at: number, end: number): boolean {
  return at + 3 <= end && /^[0-9]{3}$/.test(text.slice(at, at + 3));
}
