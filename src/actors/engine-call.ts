import type { EngineCall, EngineInput } from '../engines/engine.ts';
import type { TaskRecord } from './task-record.ts';

/** The run a record asks for, as the plain data an engine takes. */
export function engineCallOf(record: TaskRecord, lease: number): EngineCall {
  const { request } = record;
  return {
    task_id: record.id,
    lease,
    input: inputOf(request),
    max_tokens: request.max_tokens,
    seed: record.seed,
    correlation_id: record.correlation_id,
    ...samplingOf(request),
  };
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
