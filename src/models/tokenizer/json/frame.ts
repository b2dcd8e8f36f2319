import { Inexact, list, part, text, tokenId } from './inexact.ts';

/** What an engine puts around a prompt. */
export interface Frame {
  before: readonly number[];
  after: readonly number[];
}

const NOTHING: Frame = { before: [], after: [] };

/** The `post_processor` of a tokenizer.json. @throws Inexact where one is not known */
export function frameOf(value: unknown): Frame {
  if (value === null || value === undefined) return NOTHING;
  const settings = part(value);
  switch (settings['type']) {
    case 'ByteLevel':
      return NOTHING;
    case 'Sequence': {
      const frames = list(settings['processors']).map((step) => frameOf(step));
      const framing = frames.filter(({ before, after }) => before.length + after.length > 0);
      if (framing.length > 1) throw new Inexact('several frames');
      return framing[0] ?? NOTHING;
    }
    case 'TemplateProcessing':
      return template(list(settings['single']), part(settings['special_tokens']));
    case 'BertProcessing':
    case 'RobertaProcessing':
      return { before: [tokenId(list(settings['cls'])[1])], after: [tokenId(list(settings['sep'])[1])] };
    default:
      throw new Inexact('a post-processor that is not known');
  }
}

function template(items: readonly unknown[], tokens: Readonly<Record<string, unknown>>): Frame {
  const before: number[] = [];
  const after: number[] = [];
  let prompts = 0;
  for (const item of items) {
    const { Sequence: prompt, SpecialToken: special } = part(item);
    if (prompt !== undefined) {
      if (text(part(prompt)['id']) !== 'A') throw new Inexact('a second prompt');
      prompts += 1;
    } else {
      const { ids } = part(tokens[text(part(special)['id'])]);
      (prompts === 0 ? before : after).push(...list(ids).map(tokenId));
    }
  }
  if (prompts !== 1) throw new Inexact('a frame without a prompt');
  return { before, after };
}
