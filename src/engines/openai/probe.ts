import { TaskchartError } from '../../errors.ts';
import { type Upstream, type UpstreamAnswer, answered } from '../llamacpp/upstream.ts';
import { complaintOf, refusalOf } from '../remote-failure.ts';
import { type Manners, betterManners, responseFormat } from './request.ts';

/** What a server was seen to do; nothing in its interface tells. */
export interface Abilities {
  completions: boolean;
  chat: boolean;
  /** Whether an answer kept to a schema that no model would have kept to by chance. */
  schema: boolean;
  embeddings: boolean;
  manners: Manners;
  /** The last refusal, for a server that does none of it. */
  refusal: string | undefined;
}

const WORD = 'xyzzy';
const SCHEMA = {
  type: 'object',
  properties: { word: { type: 'string', enum: [WORD] } },
  required: ['word'],
  additionalProperties: false,
};

/** Tries each call once, with a token or a few. @throws TaskchartError where the server cannot be asked now */
export async function probe(upstream: Upstream, model: string, signal: AbortSignal): Promise<Abilities> {
  let manners: Manners = { usage: true, max_tokens_name: 'max_tokens' };
  let refusal: string | undefined;
  const attempt = async (path: string, body: object): Promise<UpstreamAnswer> => {
    const answer = await upstream.work(path, { model, ...body }, signal);
    if (answer.kind === 'unreachable') answered(answer);
    else if ([401, 403, 429, 503].includes(answer.status))
      throw new TaskchartError(refusalOf(answer.status, answer.body, answer.headers['retry-after']));
    else if (answer.status !== 200) refusal = refusalOf(answer.status, answer.body).message;
    return answer;
  };
  const asked = (content: string) => ({ temperature: 0, messages: [{ role: 'user', content }] });
  const completions = isCompletion(
    await attempt('/completions', { prompt: 'a', max_tokens: 1, temperature: 0 }),
  );
  let talk = await attempt('/chat/completions', { ...asked('a'), [manners.max_tokens_name]: 1 });
  const better =
    talk.kind === 'answer' ? betterManners(complaintOf(talk.body)?.message ?? '', manners) : undefined;
  if (better !== undefined && !isCompletion(talk)) {
    manners = better;
    talk = await attempt('/chat/completions', { ...asked('a'), [manners.max_tokens_name]: 1 });
  }
  const chat = isCompletion(talk);
  const schema =
    chat &&
    keepsSchema(
      await attempt('/chat/completions', {
        ...asked('Say hello.'),
        [manners.max_tokens_name]: 32,
        response_format: responseFormat(SCHEMA),
      }),
    );
  const embedded = await attempt('/embeddings', { input: 'a' });
  const embeddings = embedded.kind === 'answer' && embedded.status === 200;
  return { completions, chat, schema, embeddings, manners, refusal };
}

function isCompletion(answer: UpstreamAnswer): boolean {
  if (answer.kind !== 'answer' || answer.status !== 200) return false;
  return Array.isArray((answer.body as { choices?: unknown } | null)?.choices);
}

/** A small model may lose itself in blanks, which a schema allows; what else it wrote has to be as asked. */
function keepsSchema(answer: UpstreamAnswer): boolean {
  if (!isCompletion(answer) || answer.kind !== 'answer') return false;
  const { choices } = answer.body as { choices: { message?: { content?: unknown } }[] };
  const said = String(choices[0]?.message?.content ?? '').replaceAll(/\s+/gu, '');
  return said !== '' && JSON.stringify({ word: WORD }).startsWith(said);
}
