/** What our own callers ask for where their user does not say; the wire itself has no defaults. */
export const DEFAULT_MAX_TOKENS = 256;

/** Milliseconds: long enough for a model that has to be loaded first. */
export const DEFAULT_DEADLINE_MS = 600_000;
