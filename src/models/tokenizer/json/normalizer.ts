import { Inexact, list, part, text } from './inexact.ts';
import { matcherOf } from './pattern.ts';
import { FORM_STRANGER } from './unicode-strangers.ts';

/** What is done to a stretch of text before it is cut. */
export interface Normalizer {
  apply(text: string): string;
  /** Whether the text may start elsewhere than it did. */
  moves_start: boolean;
}

/** The `normalizer` of a tokenizer.json. @throws Inexact where one is not known; `apply` throws it for a text */
export function normalizerOf(value: unknown): Normalizer {
  if (value === null || value === undefined) return { apply: (same) => same, moves_start: false };
  const settings = part(value);
  switch (settings['type']) {
    case 'Sequence': {
      const steps = list(settings['normalizers']).map((step) => normalizerOf(step));
      return {
        apply: (whole) => steps.reduce((changed, step) => step.apply(changed), whole),
        moves_start: steps.some((step) => step.moves_start),
      };
    }
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return { apply: normalForm(settings['type']), moves_start: false };
    case 'Prepend': {
      const prefix = text(settings['prepend']);
      return { apply: (whole) => (whole === '' ? '' : prefix + whole), moves_start: true };
    }
    case 'Replace': {
      const content = text(settings['content']);
      return { apply: replacer(settings['pattern'], content), moves_start: content === '' };
    }
    default:
      throw new Inexact('a normalizer that is not known');
  }
}

function normalForm(form: 'NFC' | 'NFD' | 'NFKC' | 'NFKD'): (whole: string) => string {
  return (whole) => {
    if (FORM_STRANGER.test(whole)) throw new Inexact('a character with another normal form');
    return whole.normalize(form);
  };
}

function replacer(pattern: unknown, content: string): (whole: string) => string {
  const matches = matcherOf(pattern);
  return (whole) => {
    let out = '';
    let from = 0;
    matches(whole, (start, end) => {
      out += whole.slice(from, start) + content;
      from = end;
    });
    return from === 0 ? whole : out + whole.slice(from);
  };
}
