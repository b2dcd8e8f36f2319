import type { Commit } from './store.ts';

/** Stands for a fact's data where it has none: no JSON is empty. */
export const DELETED = '';

/**
 * Commits on their way to the thread, flat because that is cheap to copy. For each commit, `counts` has its number of
 * checks, its number of facts and the version of each check; `texts` has the key of each check, and the key and the
 * JSON of each fact.
 */
export interface CommitBatch {
  counts: number[];
  texts: string[];
}

/** Places in the batch of the commits whose checks did not hold. */
export type Conflicts = readonly number[];

/** @throws TypeError for data that JSON cannot say; the batch is then as it was */
export function addCommit({ counts, texts }: CommitBatch, { checks = [], facts }: Commit): void {
  const data = facts.map((fact) => (fact.data === undefined ? DELETED : JSON.stringify(fact.data)));
  counts.push(checks.length, facts.length);
  for (const { key, version } of checks) {
    counts.push(version);
    texts.push(key);
  }
  for (const [place, { key }] of facts.entries()) texts.push(key, data[place] as string);
}
