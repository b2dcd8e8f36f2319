import type { EngineProperties } from '../engine.ts';
import { loadError } from '../outcome.ts';
import { type Upstream, type UpstreamAnswer, answered } from './upstream.ts';

/** What the answer of `GET /props` has for us. */
interface ServerProps {
  total_slots?: number;
  default_generation_settings?: { n_ctx?: number };
  build_info?: string;
  model_alias?: string;
  chat_template?: string;
}

/**
 * Asks a server that is ready what it is and what it can do.
 * @throws TaskchartError where it does not answer, or is no llama-server.
 */
export async function inspect(
  upstream: Upstream,
  { model_id, reuse_prefix = true }: { model_id?: string; reuse_prefix?: boolean },
  signal: AbortSignal,
): Promise<EngineProperties> {
  const props = answered(await upstream.get('/props', signal)) as ServerProps;
  const ctx = props.default_generation_settings?.n_ctx;
  if (typeof props.total_slots !== 'number' || typeof ctx !== 'number') {
    throw loadError('No llama-server there: GET /props does not tell slots and context.');
  }
  const workloads = await probeWorkloads(upstream, signal);
  const completes = workloads.includes('completion');
  return {
    engine_version: `llama.cpp-${props.build_info ?? 'unknown'}`,
    ctx_max: ctx,
    slots_total: props.total_slots,
    model_id: model_id ?? props.model_alias ?? 'unknown',
    workloads,
    features: {
      chat: completes && props.chat_template ? 'rendered' : 'none',
      grammar: completes,
      json_schema: completes,
      resume: completes,
      tokenizer: true,
      deterministic: false,
      // One at a time and with nothing in the cache, the same request gives the same bytes.
      deterministic_cold: completes && props.total_slots === 1,
      kv_reuse: reuse_prefix,
    },
  };
}

/**
 * `/props` does not tell how the server was started, but a call without its arguments does: 501 where the flag is
 * missing, 400 where the arguments are. A server for embeddings completes too if its model can, which only a
 * completion of one token shows; the others need no such proof.
 */
async function probeWorkloads(
  upstream: Upstream,
  signal: AbortSignal,
): Promise<EngineProperties['workloads']> {
  const embeds = offers(await upstream.post('/embedding', {}, signal));
  if (!embeds) return ['completion'];
  const ranks = offers(await upstream.post('/rerank', {}, signal));
  const token = { prompt: 'a', n_predict: 1, temperature: 0, cache_prompt: false, response_fields: ['stop'] };
  return [
    ...(statusOf(await upstream.post('/completion', token, signal)) === 200 ? (['completion'] as const) : []),
    // What ranks answers to `/embedding` with a score and what lies behind it in memory.
    ranks ? 'rerank' : 'embedding',
  ];
}

function offers(answer: UpstreamAnswer): boolean {
  return statusOf(answer) === 400;
}

/** @throws TaskchartError where there is no answer, or one that says to come back later. */
function statusOf(answer: UpstreamAnswer): number {
  if (answer.kind === 'unreachable' || answer.status === 503) answered(answer);
  return answer.kind === 'answer' ? answer.status : 0;
}
