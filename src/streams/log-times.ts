import type { LogTime } from './task-log.ts';

/** {@link LogTime}s as a log has them, `from` and `at_ms` in turn: a log of many tokens has one for most of them. */
export type PlainTimes = number[];

/**
 * Notes when events came, unless those before them came in the same millisecond; time never goes back.
 * @returns the same list, or the first one, at its size: a list that grows by its first entry takes room for more
 */
export function noteTime(times: PlainTimes | undefined, from: number, at_ms: number): PlainTimes {
  const whole_ms = Math.floor(at_ms);
  if (!times) return [from, whole_ms];
  if (times.length === 0 || whole_ms > (times.at(-1) as number)) times.push(from, whole_ms);
  return times;
}

export function toTimes(times: readonly number[]): LogTime[] {
  const entries: LogTime[] = [];
  for (let place = 0; place < times.length; place += 2)
    entries.push({ from: times[place] as number, at_ms: times[place + 1] as number });
  return entries;
}

/**
 * Times from the event `first` on, as text: the first entry as it is, the others as what they add to the one before,
 * which makes a token's time a few characters. Empty where there are none.
 */
export function packTimes(times: readonly number[], first = 0): string {
  let start = times.length;
  while (start > 0 && (times[start - 2] as number) >= first) start -= 2;
  let text = '';
  for (let place = start; place < times.length; place++) {
    const value = times[place] as number;
    const known = place < start + 2 ? 0 : (times[place - 2] as number);
    text += `${text === '' ? '' : ','}${value - known}`;
  }
  return text;
}

/** What {@link packTimes} has packed. */
export function unpackTimes(text: string): PlainTimes {
  const times = text === '' ? [] : text.split(',').map(Number);
  for (let place = 2; place < times.length; place++)
    times[place] = (times[place] as number) + (times[place - 2] as number);
  return times;
}
