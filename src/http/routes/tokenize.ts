import { parseTokenizeRequest } from '../../contract/validate.ts';
import type { TokenizeRequest } from '../../contract/generated/types.ts';
import { failure, TaskchartError } from '../../errors.ts';
import { readJson } from '../body.ts';
import type { Handler, HttpOptions } from '../handler.ts';
import { queryOf, shorten } from '../query.ts';

export function tokenizeRoutes({
  orchestrator,
  body_limit_bytes,
}: HttpOptions): Record<'tokenize' | 'tokenizeQuery', Handler> {
  const count = async ({ model_ref, text, messages }: TokenizeRequest): Promise<object> => {
    const pool = [...orchestrator.pools.values()].find(({ spec }) => spec.model === model_ref);
    if (!pool)
      throw new TaskchartError(
        failure('POOL_UNAVAILABLE', `model_ref: no pool serves "${shorten(model_ref)}"`, {
          retriable: false,
        }),
      );
    const { signal } = new AbortController();
    const input = messages
      ? ({ kind: 'chat', messages } as const)
      : ({ kind: 'prompt', text: text ?? '' } as const);
    const tokens = await pool.count(input, signal);
    if (tokens === undefined)
      throw new TaskchartError(
        failure('POOL_UNREADY', `model_ref: nobody can count the tokens of "${shorten(model_ref)}" now`, {
          pool_id: pool.spec.id,
          retry_after_ms: 1000,
        }),
      );
    return { count: tokens, exact: pool.properties?.features.tokenizer ?? true };
  };

  return {
    async tokenize(ctx) {
      ctx.body = await count(parseTokenizeRequest(await readJson(ctx.req, body_limit_bytes)));
    },

    async tokenizeQuery(ctx) {
      ctx.body = await count(
        parseTokenizeRequest({ model_ref: queryOf(ctx, 'model_ref'), text: queryOf(ctx, 'text') }),
      );
    },
  };
}
