import type { ArtifactKind, Artifact } from '../../contract/generated/types.ts';
import { failure, TaskchartError } from '../../errors.ts';
import { readJson } from '../body.ts';
import type { Handler, HttpOptions } from '../handler.ts';
import { oneOf, queryOf, shorten, wholeNumber } from '../query.ts';

const KINDS = ['plan', 'summary', 'diff', 'trace', 'other'] as const satisfies readonly ArtifactKind[];
const PAGE = 100;
const LARGEST_PAGE = 1000;

export function artifactRoutes({
  artifacts,
  body_limit_bytes,
}: HttpOptions): Record<'createArtifact' | 'getArtifact' | 'listArtifacts', Handler> {
  return {
    async createArtifact(ctx) {
      ctx.body = await artifacts.put((await readJson(ctx.req, body_limit_bytes)) as Artifact);
      ctx.status = 201;
    },

    async getArtifact(ctx) {
      const id = ctx['params'].id as string;
      const artifact = await artifacts.get(id);
      if (!artifact)
        throw new TaskchartError(failure('NOT_FOUND', `artifact id: there is no artifact "${shorten(id)}"`));
      ctx.body = artifact;
    },

    async listArtifacts(ctx) {
      ctx.body = await artifacts.list({
        kind: oneOf('kind', queryOf(ctx, 'kind'), KINDS),
        tag: queryOf(ctx, 'tag'),
        limit: wholeNumber('limit', queryOf(ctx, 'limit'), { from: 1, to: LARGEST_PAGE }) ?? PAGE,
        cursor: queryOf(ctx, 'cursor'),
      });
    },
  };
}
