import type { Middleware } from 'koa';
import { newCorrelationId } from '../ids.ts';

export const CORRELATION_HEADER = 'X-Correlation-Id';

/** Long ids and control characters would end up in every log line. */
const ACCEPTABLE = /^[\x21-\x7e]{1,128}$/;

export interface CorrelationState {
  correlation_id: string;
}

/** Every response carries the caller's correlation id, or a fresh UUIDv4. */
export const correlate: Middleware<CorrelationState> = (ctx, next) => {
  const given = ctx.get(CORRELATION_HEADER);
  ctx.state.correlation_id = ACCEPTABLE.test(given) ? given : newCorrelationId();
  ctx.set(CORRELATION_HEADER, ctx.state.correlation_id);
  return next();
};
