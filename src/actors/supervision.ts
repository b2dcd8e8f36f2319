import type { AnyActorRef, SnapshotFrom } from 'xstate';
import type { RestartRule } from '../machines/restart-policy.ts';

/** What to do with a child of each kind when it fails, and how it is stopped. */
export interface SupervisionRule {
  /** `on failure`: started again by its own machine within the budget; `never`: its failure is an outcome. */
  restart: 'on failure' | 'never';
  /** How the child is asked to stop, and how long it may take in milliseconds before it is stopped by force. */
  shutdown: { how: string; within_ms: number };
  budget: RestartRule | undefined;
  /** What the parent does when the budget is spent, or at once where there is none. */
  when_spent: string;
}

/**
 * The one table of restart rules. Stop goes in the reverse order of start: tasks, replicas, provisioner, pool,
 * orchestrator.
 */
export const SUPERVISION = {
  orchestrator: {
    restart: 'never',
    shutdown: { how: 'drains its pools', within_ms: 10_000 },
    budget: undefined,
    when_spent: 'the process logs the error and exits',
  },
  pool: {
    restart: 'never',
    shutdown: { how: 'drains, then revokes the leases that are left', within_ms: 10_000 },
    budget: undefined,
    when_spent: 'its queued tasks fail with INTERNAL and it refuses new ones',
  },
  provisioner: {
    restart: 'never',
    shutdown: { how: 'aborts the step it is in', within_ms: 1000 },
    budget: undefined,
    when_spent: 'the pool becomes unready with the cause and asks again after its backoff',
  },
  replica: {
    restart: 'on failure',
    shutdown: { how: 'unloads its engine; SIGTERM, SIGKILL after 5 s', within_ms: 7000 },
    budget: {
      initial_ms: 1000,
      factor: 2,
      max_ms: 60_000,
      min_ms: 500,
      jitter: 0.1,
      device_factor: 2,
      stable_ms: 300_000,
      breaker_threshold: 5,
      breaker_open_ms: 300_000,
      trial_stable_ms: 60_000,
      max_restarts: 10,
      window_ms: 60_000,
    },
    when_spent:
      'its breaker opens; a pool without another replica is unready, and lets a trial through in time',
  },
  task: {
    restart: 'never',
    shutdown: { how: 'aborts its run; the slot stays leased until the engine let go', within_ms: 5000 },
    budget: undefined,
    when_spent: 'a failure is its `error` state; one that may run again, or can go on, is queued again',
  },
} as const satisfies Record<string, SupervisionRule>;

/**
 * Links a root actor to its owner. Exactly one of the two is called, once, when the actor is over: the owner drops
 * its reference there, so no corpse stays behind.
 */
export function link<TActor extends AnyActorRef>(
  actor: TActor,
  on: {
    moved?: (snapshot: SnapshotFrom<TActor>) => void;
    completed: () => void;
    crashed: (error: unknown) => void;
  },
): void {
  // One observer for all three: xstate throws a crash into the event loop if any observer has no `error`.
  actor.subscribe({ next: on.moved ?? (() => {}), complete: on.completed, error: on.crashed });
}
