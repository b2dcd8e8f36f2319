import { type ErrorKind, type Failure, TaskchartError, failure, toFailure } from '../errors.ts';
import type { EngineOutcome, Usage } from './engine.ts';

export function noUsage(): Usage {
  return { tokens_in: 0, tokens_cached: 0, tokens_out: 0 };
}

/** A run that ended before anything was decoded, or with the usage so far. */
export function failed(cause: Failure, usage: Usage = noUsage()): EngineOutcome {
  return { kind: 'failed', failure: cause, usage };
}

/** A call that the engine would not take now; nobody's mistake. */
export function declined(cause: Failure): EngineOutcome {
  return { kind: 'failed', failure: cause, usage: noUsage(), declined: true };
}

/** Thrown where an engine has not begun with what it was asked for: it is busy, loading or gone. */
export class Declined extends TaskchartError {}

/** How a call ends that was given up with an error. @param usage so far: one that has begun was not declined */
export function givenUp(error: unknown, usage: Usage = noUsage()): EngineOutcome {
  const cause = toFailure(error, 'POOL_UNAVAILABLE');
  const hasBegun = usage.tokens_in > 0 || usage.tokens_out > 0;
  return error instanceof Declined && !hasBegun ? declined(cause) : failed(cause, usage);
}

export function aborted(usage: Usage = noUsage()): EngineOutcome {
  return { kind: 'aborted', usage };
}

/** An error on the way through an answer: what is not a failure already is an answer of another shape. */
export function readable(error: unknown): TaskchartError {
  if (error instanceof TaskchartError) return error;
  return new TaskchartError(failure('WORKER_RESET', 'The engine sent an answer that cannot be read.'));
}

/** Input that leaves no room for a single token. Never cut: the caller decides what to drop. */
export function contextOverflow(tokensIn: number, ctxMax: number): Failure {
  return failure(
    'INVALID_PARAMS',
    `The input is ${tokensIn} tokens and the context holds ${ctxMax}, at least one of them for the output.`,
  );
}

/** A text to embed, or a query with a document to rank, that does not fit; `inputs[i]` is its name in a request. */
export function inputOverflow(i: number, tokens: number, ctxMax: number): Failure {
  return failure('INVALID_PARAMS', `\`inputs[${i}]\` is ${tokens} tokens and the context holds ${ctxMax}.`);
}

/** A text to embed that has nothing in it. */
export function emptyInput(i: number): Failure {
  return failure('INVALID_PARAMS', `\`inputs[${i}]\` has no tokens; send some text.`);
}

/** A request for something this engine does not have, by the name of the field. */
export function unsupported(field: string, reason: string): Failure {
  return failure('INVALID_PARAMS', `\`${field}\` is not supported here: ${reason}.`);
}

/** More calls than slots: the pool hands out slots, so this is its mistake and not the caller's. */
export function noFreeSlot(slots: number): Failure {
  return failure('REPLICA_EXHAUSTED', `All ${slots} slots of the engine are busy.`);
}

export function notLoaded(): Failure {
  return failure('POOL_UNAVAILABLE', 'The engine is not loaded.');
}

/** What `load` rejects with: one line, whatever the cause said. */
export function loadError(message: string, code: ErrorKind = 'POOL_UNAVAILABLE'): TaskchartError {
  return new TaskchartError(failure(code, message.replaceAll(/\s+/gu, ' ').trim()));
}
