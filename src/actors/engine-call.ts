import type { EmbedCall, EngineCall, EngineInput, RerankCall } from '../engines/engine.ts';
import type { Failure } from '../errors.ts';
import type { TaskRecord } from './task-record.ts';
import type { Past } from './tasks.ts';

/** What a record asks of an engine, as the plain data it takes. */
export type Work =
  | { kind: 'completion'; call: EngineCall }
  | { kind: 'embedding'; call: EmbedCall }
  | { kind: 'rerank'; call: RerankCall }
  /** Earlier runs have written all that was asked for, and were lost before they could say so. */
  | { kind: 'complete' };

export function workOf(record: TaskRecord, lease: number, past: Past | undefined): Work {
  const { request } = record;
  const common = { task_id: record.id, lease, correlation_id: record.correlation_id };
  if (request.workload === 'embedding')
    return { kind: 'embedding', call: { ...common, inputs: request.inputs ?? [request.prompt ?? ''] } };
  if (request.workload === 'rerank')
    return {
      kind: 'rerank',
      call: { ...common, query: request.prompt ?? '', documents: request.inputs ?? [] },
    };
  const resume =
    past?.mode === 'resume' ? { text: past.text, tokens_out: record.context.usage.tokens_out } : undefined;
  const max_tokens = request.max_tokens - (resume?.tokens_out ?? 0);
  if (max_tokens <= 0) return { kind: 'complete' };
  return {
    kind: 'completion',
    call: {
      ...common,
      input: inputOf(request),
      max_tokens,
      seed: unsignedSeed(record.seed),
      ...(isCold(request) ? { cold: true } : {}),
      ...samplingOf(request),
      ...(resume ? { resume } : {}),
    },
  };
}

/** Whether a request must not profit from what others have left: it says so, or has to give the same bytes again. */
export function isCold({ kv_hint, determinism }: TaskRecord['request']): boolean {
  return kv_hint === 'cold' || determinism === 'strict';
}

/** A failure of the engine in the words of the request: a single text to embed may have come as `prompt`. */
export function inWordsOf({ inputs }: TaskRecord['request'], cause: Failure): Failure {
  return inputs ? cause : { ...cause, message: cause.message.replaceAll('`inputs[0]`', '`prompt`') };
}

/** Servers read -1, and some read more of the negative ones, as "choose a seed at random". */
function unsignedSeed(seed: number): number {
  return seed < 0 ? Number.MAX_SAFE_INTEGER + 1 + seed : seed;
}

/** What a request asks the engine to continue. */
export function inputOf(request: TaskRecord['request']): EngineInput {
  if (request.messages) return { kind: 'chat', messages: request.messages };
  return { kind: 'prompt', text: request.prompt ?? (request.inputs ?? []).join('') };
}

function samplingOf({ sampling }: TaskRecord['request']): Pick<EngineCall, 'sampling' | 'output'> {
  if (!sampling) return {};
  const { grammar, json_schema, ...rest } = sampling;
  return {
    sampling: rest as NonNullable<EngineCall['sampling']>,
    ...(grammar === undefined ? {} : { output: { kind: 'grammar', gbnf: grammar } as const }),
    ...(json_schema === undefined ? {} : { output: { kind: 'json_schema', schema: json_schema } as const }),
  };
}
