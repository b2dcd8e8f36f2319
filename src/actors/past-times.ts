import type { Clock } from '../clock.ts';
import type { LogEvent, LogTime } from '../streams/task-log.ts';

/** When an earlier process wrote, in monotonic milliseconds of this one. */
export interface PastTimes {
  /** Its first token, vector or score. */
  first: number;
  last: number;
  /** Milliseconds between the two in which no run went on with it. */
  away_ms: number;
}

/** @returns undefined where the log has no output, or does not know when */
export function pastTimes(
  events: readonly LogEvent[],
  known: readonly LogTime[],
  clock: Clock,
): PastTimes | undefined {
  const toClock = clock.now() - clock.wall();
  let next = 0;
  let at: number | undefined;
  let first: number | undefined;
  let away_ms = 0;
  for (const event of events) {
    const before = at;
    for (let time = known[next]; time && time.from <= event.id; time = known[++next])
      at = time.at_ms + toClock;
    if (event.type === 'token' || event.type === 'embedding' || event.type === 'rerank') first ??= at;
    if (event.type === 'metrics' && event.data.resumed && before !== undefined)
      away_ms += (at ?? before) - before;
  }
  return first === undefined || at === undefined ? undefined : { first, last: at, away_ms };
}
