import type { Middleware } from 'koa';
import { newCorrelationId } from '../ids.ts';

export const CORRELATION_HEADER = 'X-Correlation-Id';

/** Long ids and control characters would end up in every log line, and on calls to engines. */
const ACCEPTABLE = /^[\x20-\x7e]{1,128}$/;

export interface CorrelationState {
  correlation_id: string;
}

/** The caller's correlation id where it can be echoed, or a fresh UUIDv4. */
export function correlationIdOf(given: string): string {
  return ACCEPTABLE.test(given) ? given : newCorrelationId();
}

/** Every response carries the caller's correlation id, or a fresh UUIDv4. */
export const correlate: Middleware<CorrelationState> = (ctx, next) => {
  ctx.state.correlation_id = correlationIdOf(ctx.get(CORRELATION_HEADER));
  ctx.set(CORRELATION_HEADER, ctx.state.correlation_id);
  return next();
};
