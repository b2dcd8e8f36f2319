/** Calls that a server is given at a time where nobody says; these engines batch what runs together. */
export const DEFAULT_SLOTS = 8;

/** A model by its name on the server, with its context where the list has it. */
export interface ListedModel {
  id: string;
  /** Tokens. */
  ctx: number | undefined;
  owner: string | undefined;
}

/** What `GET /v1/models` tells; servers differ in the name of the context. */
export function listedModels(body: unknown): ListedModel[] {
  const { data } = (body ?? {}) as { data?: unknown };
  if (!Array.isArray(data)) return [];
  return (data as Record<string, unknown>[])
    .filter(({ id }) => typeof id === 'string')
    .map((entry) => {
      const meta = (entry['meta'] ?? {}) as { n_ctx?: unknown };
      const told = [entry['max_model_len'], entry['context_length'], entry['context_window'], meta.n_ctx];
      const owner = entry['owned_by'];
      return {
        id: entry['id'] as string,
        ctx: told.find((each): each is number => typeof each === 'number' && each > 0),
        owner: typeof owner === 'string' ? owner : undefined,
      };
    });
}
