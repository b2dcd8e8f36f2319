/** Time as a port. Machines, pools and adapters take it as an option, so a test owns every timer. */
export interface Clock {
  /** Monotonic milliseconds from an arbitrary origin: for durations and due times. */
  now(): number;
  /** Milliseconds since the Unix epoch: for people, logs and stored timestamps. */
  wall(): number;
  /** Calls `fn` once after `ms` milliseconds. */
  setTimeout(fn: () => void, ms: number): unknown;
  /** Takes what `setTimeout` returned; an unknown or fired timer is ignored. */
  clearTimeout(id: unknown): void;
}

/** The process's own clock. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  setTimeout: (fn, ms) => setTimeout(fn, ms),
  clearTimeout: (id) => clearTimeout(id as NodeJS.Timeout | undefined),
};
