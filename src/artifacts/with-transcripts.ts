import type { Artifact, ArtifactPage } from '../contract/generated/types.ts';
import { parseArtifact } from './artifact.ts';
import type { ArtifactQuery, ArtifactStore } from './artifact-store.ts';

/** Artifacts that are nowhere stored, but made when they are asked for. */
export interface MadeArtifacts {
  get(id: string): Promise<Artifact | undefined>;
  /** With a limit of 0 there is a cursor where there would be more. */
  list(query: ArtifactQuery): Promise<ArtifactPage>;
}

/** Before a cursor of those that are made. */
const MADE = 'made-';

/** What clients see: what is stored, followed by what is made. Checks what is put. */
export function withTranscripts(
  stored: ArtifactStore,
  made: MadeArtifacts,
): Pick<ArtifactStore, 'put' | 'get' | 'list'> {
  return {
    put: async (artifact) => stored.put(parseArtifact(artifact)),
    get: async (id) => (await made.get(id)) ?? stored.get(id),
    async list(query) {
      const { limit, cursor } = query;
      const isPast = cursor?.startsWith(MADE) ?? false;
      const first: ArtifactPage = isPast ? { artifacts: [] } : await stored.list(query);
      if (first.next_cursor !== undefined) return first;
      const { artifacts, next_cursor } = await made.list({
        ...query,
        limit: limit - first.artifacts.length,
        cursor: isPast ? cursor?.slice(MADE.length) : undefined,
      });
      return {
        artifacts: [...first.artifacts, ...artifacts],
        ...(next_cursor === undefined ? {} : { next_cursor: MADE + next_cursor }),
      };
    },
  };
}
