/** A fact under a key; `data: undefined` forgets the key, and its next fact is again its first. */
export interface Fact {
  key: string;
  /** What JSON can say. */
  data: unknown;
}

/** Refuses the commit unless the key has had exactly this many facts; 0 = it must be new. */
export interface Check {
  key: string;
  version: number;
}

export interface Commit {
  checks?: readonly Check[];
  facts: readonly Fact[];
}

/** `unknown`: no answer, the commit may or may not have happened. */
export type CommitResult = 'ok' | 'conflict' | 'unknown';

/**
 * What has to outlive the process. One write, one read to start; lists and filters are projections elsewhere.
 * A store in this process may answer at once.
 */
export interface Store {
  /** Whether what it has taken outlives the process. */
  readonly isDurable: boolean;
  /** All facts or none; an implementation may group concurrent commits. */
  commit(commit: Commit): CommitResult | Promise<CommitResult>;
  /** Every key's latest fact, in the order of the keys' first commits, in batches; as it was when reading began. */
  fold(): AsyncIterable<readonly Fact[]>;
  /** Resolves once what was committed before is answered. Safe to repeat; commits that come later are not kept. */
  close(): Promise<void>;
}
