import type { Middleware } from 'koa';
import { newCorrelationId } from '../ids.ts';

export const CORRELATION_HEADER = 'X-Correlation-Id';
/** As Node has the names of a request's headers. */
const GIVEN = 'x-correlation-id';

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
  const given = ctx.req.headers[GIVEN];
  const correlation_id = correlationIdOf(typeof given === 'string' ? given : '');
  ctx.state.correlation_id = correlation_id;
  ctx.res.setHeader(CORRELATION_HEADER, correlation_id);
  return next();
};
