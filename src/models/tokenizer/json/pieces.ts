import { Inexact, flag, list, part, text, type Part } from './inexact.ts';
import { matcherOf, type Matcher } from './pattern.ts';

/** Receives the pieces of a text in order. `first`: nothing of the text stands before it. */
type Sink = (piece: string, first: boolean) => void;
/** Cuts a piece, and may change it. Nothing empty is given or made. */
type Cut = (piece: string, first: boolean, sink: Sink) => void;

/** Cuts a text into the pieces within which tokens may grow. */
export interface PieceCutter {
  cut: Cut;
  /** Whether tokens are made of bytes, in GPT-2's stand-ins; of characters otherwise. */
  byte_level: boolean;
  /** Whether the cut depends on where the text begins. */
  minds_start: boolean;
}

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const BEHAVIORS = ['Isolated', 'Removed', 'Contiguous', 'MergedWithPrevious', 'MergedWithNext'] as const;
type Behavior = (typeof BEHAVIORS)[number];

/** The `pre_tokenizer` of a tokenizer.json. @throws Inexact where one is not known; `cut` throws it for a text */
export function cutterOf(value: unknown): PieceCutter {
  if (value === null || value === undefined) return plain((piece, first, sink) => sink(piece, first));
  const settings = part(value);
  switch (settings['type']) {
    case 'Sequence':
      return sequence(list(settings['pretokenizers']).map((step) => cutterOf(step)));
    case 'ByteLevel':
      return { ...plain(byteLevel(settings)), byte_level: true };
    case 'Split':
      return plain(
        split(matcherOf(settings['pattern']), behaviorOf(settings), flag(settings, 'invert', false)),
      );
    case 'Digits':
      return plain(
        split(
          matcherOf({ Regex: '\\p{N}' }),
          flag(settings, 'individual_digits', false) ? 'Isolated' : 'Contiguous',
          false,
        ),
      );
    case 'Metaspace':
      return metaspace(settings);
    default:
      throw new Inexact('a pre-tokenizer that is not known');
  }
}

function plain(cut: Cut): PieceCutter {
  return { cut, byte_level: false, minds_start: false };
}

function sequence(steps: readonly PieceCutter[]): PieceCutter {
  if (steps.slice(0, -1).some((step) => step.byte_level)) throw new Inexact('a step behind the byte level');
  return {
    cut: steps.reduceRight<Cut>(
      (next, step) => (piece, first, sink) =>
        step.cut(piece, first, (smaller, leads) => next(smaller, leads, sink)),
      (piece, first, sink) => sink(piece, first),
    ),
    byte_level: steps.at(-1)?.byte_level ?? false,
    minds_start: steps.some((step) => step.minds_start),
  };
}

function byteLevel(settings: Part): Cut {
  const cuts = flag(settings, 'use_regex', true)
    ? split(matcherOf({ Regex: GPT2 }), 'Isolated', false)
    : undefined;
  const prefixes = flag(settings, 'add_prefix_space', true);
  return (piece, first, sink) => {
    const whole = prefixes && !piece.startsWith(' ') ? ` ${piece}` : piece;
    if (cuts === undefined) sink(whole, first);
    else cuts(whole, first, sink);
  };
}

function metaspace(settings: Part): PieceCutter {
  const replacement = text(settings['replacement']);
  const scheme = settings['prepend_scheme'] ?? 'always';
  if ([...replacement].length !== 1) throw new Inexact('a replacement that is no character');
  if (scheme !== 'always' && scheme !== 'first' && scheme !== 'never') {
    throw new Inexact('a scheme of prefixes that is not known');
  }
  const prefixes = settings['add_prefix_space'] === false ? 'never' : scheme;
  if (prefixes !== scheme && settings['prepend_scheme'] !== undefined) {
    throw new Inexact('prefixes that contradict each other');
  }
  const cuts = flag(settings, 'split', true)
    ? split(matcherOf({ String: replacement }), 'MergedWithNext', false)
    : undefined;
  return {
    byte_level: false,
    minds_start: prefixes === 'first',
    cut(piece, first, sink) {
      let whole = piece.replaceAll(' ', replacement);
      const wants = prefixes === 'always' || (prefixes === 'first' && first);
      if (wants && !whole.startsWith(replacement)) whole = replacement + whole;
      if (cuts === undefined) sink(whole, first);
      else cuts(whole, first, sink);
    },
  };
}

function behaviorOf(settings: Part): Behavior {
  const behavior = BEHAVIORS.find((name) => name === settings['behavior']);
  if (behavior === undefined) throw new Inexact('a kind of split that is not known');
  return behavior;
}

/** The cut at what a pattern matches; `invert` takes what lies between the matches for them. */
function split(matches: Matcher, behavior: Behavior, invert: boolean): Cut {
  return (piece, first, sink) => {
    const give = (start: number, end: number): void => {
      if (end > start) sink(piece.slice(start, end), first && start === 0);
    };
    let pending = 0;
    let was_match: boolean | undefined;
    // Stretches come in order and cover the piece; each is a match or lies between two.
    const take = (start: number, end: number, is_match: boolean): void => {
      if (start === end) return;
      if (behavior === 'Isolated') give(start, end);
      else if (behavior === 'Removed') {
        if (!is_match) give(start, end);
      } else {
        const joins =
          behavior === 'Contiguous'
            ? is_match === was_match
            : behavior === 'MergedWithPrevious'
              ? is_match && was_match === false
              : was_match === true && !is_match;
        if (!joins) {
          give(pending, start);
          pending = start;
        }
        was_match = is_match;
      }
    };
    let from = 0;
    matches(piece, (start, end) => {
      take(from, start, invert);
      take(start, end, !invert);
      from = end;
    });
    take(from, piece.length, invert);
    if (behavior !== 'Isolated' && behavior !== 'Removed') give(pending, piece.length);
  };
}
