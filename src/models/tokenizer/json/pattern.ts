import { Inexact, part, text } from './inexact.ts';

/** General categories; what else `\p{…}` may name follows rules of its own in each library. */
const CATEGORY = /^(?:L[ultmo]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Z[slp]?)$/;
const ESCAPES = new Map([
  ['s', '\\p{White_Space}'],
  ['S', '\\P{White_Space}'],
  ['d', '\\p{Nd}'],
  ['D', '\\P{Nd}'],
  ['r', '\\r'],
  ['n', '\\n'],
  ['t', '\\t'],
]);
/** In these two the rules for letter case are the same: single ASCII letters that fold to nothing longer. */
const CASELESS = /^[A-Za-z'|[\]]*$/;
const LIGATURES = /ss|ff|fi|fl|st/i;

/** Where a pattern matches: offsets of each match, in order, never empty. */
export type Matcher = (text: string, match: (start: number, end: number) => void) => void;

/**
 * A `pattern` of a tokenizer.json: `{ "String": … }` or `{ "Regex": … }`, the latter in the syntax of Oniguruma.
 * @throws Inexact where it uses anything that the two kinds of regular expressions do not share
 */
export function matcherOf(pattern: unknown): Matcher {
  const { String: literal, Regex: regex } = part(pattern);
  if (literal !== undefined) return literalMatcher(text(literal));
  const compiled = translate(text(regex));
  return (subject, match) => {
    compiled.lastIndex = 0;
    for (let found = compiled.exec(subject); found !== null; found = compiled.exec(subject)) {
      if (found[0] === '') throw new Inexact('a pattern that matches nothing');
      match(found.index, found.index + found[0].length);
    }
  };
}

function literalMatcher(literal: string): Matcher {
  if (literal === '') throw new Inexact('a pattern that matches nothing');
  return (subject, match) => {
    for (let at = subject.indexOf(literal); at >= 0; at = subject.indexOf(literal, at + literal.length)) {
      match(at, at + literal.length);
    }
  };
}

/**
 * The same expression for this runtime: what is written alike and means something else (`\s`, `.`) is spelt out, what
 * may mean something else is refused.
 * @throws Inexact
 */
function translate(source: string): RegExp {
  let out = '';
  let at = 0;
  let in_class = false;
  while (at < source.length) {
    const rest = source.slice(at);
    const [whole, translated] = in_class ? classItem(rest) : item(rest);
    if (!in_class && whole.startsWith('[')) in_class = true;
    else if (in_class && whole === ']') in_class = false;
    out += translated;
    at += whole.length;
  }
  try {
    return new RegExp(out, 'gu');
  } catch {
    throw new Inexact('a pattern that is not understood');
  }
}

/** The next part of an expression outside of brackets, and what it is here. */
function item(rest: string): [whole: string, translated: string] {
  const [first = ''] = rest;
  if (first === '\\') return escape(rest);
  if (first === '.') return ['.', '[^\\n]'];
  if (first === '^' || first === '$') throw new Inexact('an anchor in a pattern');
  if (first === '[') return openClass(rest);
  if (rest.startsWith('(?')) return group(rest);
  const repeat = /^(?:[*+?]|\{\d+(?:,\d*)?\})/.exec(rest)?.[0];
  if (repeat === undefined) return [first, first];
  const behind = rest.charAt(repeat.length);
  if (behind === '+' || (behind === '?' && repeat.startsWith('{'))) throw new Inexact('a possessive pattern');
  return [repeat, repeat];
}

function openClass(rest: string): [string, string] {
  const opening = rest.startsWith('[^') ? '[^' : '[';
  if (rest.charAt(opening.length) === ']') throw new Inexact('an empty class in a pattern');
  return [opening, opening];
}

function classItem(rest: string): [string, string] {
  const [first = ''] = rest;
  if (first === '\\') return escape(rest);
  if (first === '[' || rest.startsWith('&&')) throw new Inexact('a class within a class in a pattern');
  return [first, first];
}

function group(rest: string): [string, string] {
  const opening = /^\(\?(?:[:=!]|<[=!])/.exec(rest)?.[0];
  if (opening !== undefined) return [opening, opening];
  const caseless = /^\(\?i:([^()\\]*)\)/.exec(rest);
  const [whole = '', content = ''] = caseless ?? [];
  if (caseless === null || !CASELESS.test(content) || LIGATURES.test(content)) {
    throw new Inexact('a kind of group in a pattern that is not known');
  }
  return [whole, whole];
}

function escape(rest: string): [string, string] {
  const category = /^\\[pP]\{(\w+)\}/.exec(rest);
  if (category !== null) {
    if (!CATEGORY.test(category[1] ?? '')) throw new Inexact('a property in a pattern that is not known');
    return [category[0], category[0]];
  }
  const letter = rest.charAt(1);
  const known = ESCAPES.get(letter);
  if (known !== undefined) return [rest.slice(0, 2), known];
  const code = letter.charCodeAt(0);
  if (!(code < 128) || /\w/.test(letter)) throw new Inexact('an escape in a pattern that is not known');
  return [rest.slice(0, 2), `\\x${code.toString(16).padStart(2, '0')}`];
}
