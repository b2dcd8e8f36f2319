import type { Context, Middleware } from 'koa';
import { judgeOf, NO_TOKEN_FOR_WORKERS, type AuthOptions, type Refusal } from './caller.ts';
import type { ExchangeState } from './handler.ts';

/** Who is turned away hears of it before anything of the request is looked at, its body included. */
export function authenticate(
  options: AuthOptions,
  prefix: string,
  refused: (ctx: Context, refusal: Refusal) => void,
): Middleware<ExchangeState> {
  const judge = judgeOf(options, prefix);
  return (ctx, next) => {
    const verdict = judge(ctx.req, ctx.method, ctx.path);
    if ('identity' in verdict) {
      ctx.state.caller = verdict;
      return next();
    }
    refused(ctx as Context, verdict);
    turnAway(ctx as Context, verdict);
    return undefined;
  };
}

/** Refuses a registration that showed no token, also where the host of this face asks nobody for one. */
export function turnAwayWithoutToken(ctx: Context): void {
  turnAway(ctx, NO_TOKEN_FOR_WORKERS);
}

function turnAway(ctx: Context, { status, ...body }: Refusal): void {
  ctx.status = status;
  if (status === 401) ctx.set('WWW-Authenticate', 'Bearer');
  ctx.body = body;
}
