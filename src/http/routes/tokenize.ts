import { serves } from '../../actors/model-gate.ts';
import { parseTokenizeRequest } from '../../contract/validate.ts';
import type { TokenizeRequest } from '../../contract/generated/types.ts';
import { failure, TaskchartError } from '../../errors.ts';
import { readJson } from '../body.ts';
import type { ExchangeState, Handler, HttpOptions } from '../handler.ts';
import { queryOf, shorten } from '../query.ts';

export function tokenizeRoutes({
  orchestrator,
  body_limit_bytes,
}: HttpOptions): Record<'tokenize' | 'tokenizeQuery', Handler> {
  const count = async (
    { model_ref, text, messages }: TokenizeRequest,
    state: ExchangeState,
  ): Promise<object> => {
    const pools = [...orchestrator.pools.values()].filter(({ model }) =>
      serves(orchestrator.catalog, model, model_ref),
    );
    const pool = pools.find(({ isReady }) => isReady) ?? pools[0];
    if (!pool)
      throw new TaskchartError(
        failure('POOL_UNAVAILABLE', `model_ref: no pool serves "${shorten(model_ref)}"`, {
          retriable: false,
        }),
      );
    state.concerns = { engine: pool.spec.engine, pool_id: pool.spec.id };
    const { signal } = new AbortController();
    const input = messages
      ? ({ kind: 'chat', messages } as const)
      : ({ kind: 'prompt', text: text ?? '' } as const);
    const tokens = await pool.count(input, signal);
    if (tokens === undefined)
      throw new TaskchartError(
        failure('POOL_UNREADY', `model_ref: nobody can count the tokens of "${shorten(model_ref)}" now`, {
          retry_after_ms: 1000,
        }),
      );
    return { count: tokens, exact: pool.properties?.features.tokenizer ?? true };
  };

  return {
    async tokenize(ctx) {
      ctx.body = await count(parseTokenizeRequest(await readJson(ctx.req, body_limit_bytes)), ctx.state);
    },

    async tokenizeQuery(ctx) {
      ctx.body = await count(
        parseTokenizeRequest({ model_ref: queryOf(ctx, 'model_ref'), text: queryOf(ctx, 'text') }),
        ctx.state,
      );
    },
  };
}
