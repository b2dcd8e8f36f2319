import type { Clock } from '../clock.ts';
import type { SessionEnd } from '../machines/session.ts';
import type { Budgets } from '../scheduling/budget.ts';

export interface SessionsOptions {
  clock: Clock;
  /** How long an idle session is kept after its last use, in milliseconds. */
  ttl_ms: number;
  /** Tasks that a session may have; `null` is no limit. */
  max_turns: number | null;
  /** What each session may spend. */
  budgets: Budgets;
  /** Price of a generated token in currency units. */
  cost_per_output_token: number;
  /** Idle sessions that are kept; the least recently used leaves first. Default 100,000. */
  max_sessions?: number;
  /** Whether engines of this pool use what a session has left in a cache. Default: all do. */
  reuses?: (pool_id: string) => boolean;
  /** A session is gone: its fact should leave the store, and where it was warm, its cache may go. */
  evicted?: (session_id: string, warm: Warm | undefined, reason: SessionEnd) => void;
}

/** The replica that has a session's cache. */
export interface Warm {
  pool_id: string;
  replica_id: string;
}
