/** An abort signal that also fires when time is up. */
export interface TimeLimit {
  readonly signal: AbortSignal;
  /** Starts the time again from now, with another length and another error. */
  restart(ms: number, expired: () => Error): void;
  /** Ends what the signal guards. */
  abort(): void;
  /** Leaves neither a timer nor a listener. */
  release(): void;
}

/**
 * @param ms time from now; the signal then aborts with what `expired` makes
 * @param outer aborts the signal with its own reason
 */
export function timeLimit(ms: number, expired: () => Error, outer?: AbortSignal): TimeLimit {
  const controller = new AbortController();
  const follow = (): void => controller.abort(outer?.reason);
  if (outer?.aborted) follow();
  else outer?.addEventListener('abort', follow, { once: true });
  let timer = setTimeout(() => controller.abort(expired()), ms);
  return {
    signal: controller.signal,
    restart(next_ms, next) {
      clearTimeout(timer);
      timer = setTimeout(() => controller.abort(next()), next_ms);
    },
    abort: () => controller.abort(),
    release() {
      clearTimeout(timer);
      outer?.removeEventListener('abort', follow);
    },
  };
}
