import { parseModelState } from '../../contract/validate.ts';
import { readJson } from '../body.ts';
import type { Handler, HttpOptions } from '../handler.ts';
import { oneOf, queryOf, wholeNumber } from '../query.ts';

const PAGE = 100;
const LARGEST_PAGE = 1000;
const TRUST_HEADER = 'X-Trust-Policy';

export function catalogRoutes({
  catalog,
  body_limit_bytes,
}: HttpOptions): Record<
  'listModels' | 'createModel' | 'getModel' | 'deleteModel' | 'verifyModel' | 'setModelState',
  Handler
> {
  return {
    async listModels(ctx) {
      ctx.body = await catalog.list({
        limit: wholeNumber('limit', queryOf(ctx, 'limit'), { from: 1, to: LARGEST_PAGE }) ?? PAGE,
        cursor: queryOf(ctx, 'cursor'),
      });
    },

    async createModel(ctx) {
      const mode = oneOf(TRUST_HEADER, ctx.get(TRUST_HEADER).toLowerCase() || undefined, ['strict']);
      const model = await readJson(ctx.req, body_limit_bytes);
      ctx.body = await catalog.add(model, mode && { mode });
      ctx.status = 201;
    },

    async getModel(ctx) {
      ctx.body = await catalog.get(ctx['params'].id);
    },

    async deleteModel(ctx) {
      await catalog.remove(ctx['params'].id);
      ctx.status = 204;
    },

    async verifyModel(ctx) {
      await catalog.verify(ctx['params'].id);
      ctx.status = 202;
      ctx.body = { status: 'started' };
    },

    async setModelState(ctx) {
      const { state, deadline_ms } = parseModelState(await readJson(ctx.req, body_limit_bytes));
      await catalog.setState(ctx['params'].id, state, deadline_ms);
      ctx.status = 202;
      ctx.body = { status: 'accepted' };
    },
  };
}
