/** First rest at most, growth with each refusal in a row, and longest: in milliseconds where they are times. */
const BASE_MS = 100;
const FACTOR = 2;
const CAP_MS = 2000;

/** What an engine asks for is kept to, but not for longer than this, in milliseconds. */
const LONGEST_MS = 60_000;

/**
 * How long an engine that takes no calls now is left alone, in milliseconds: for as long as it asks, else with full
 * jitter, so that several who were refused at once do not come back at once.
 * @param rests refusals in a row before this one
 * @param random 0 to 1, spread evenly
 * @param retry_after_ms what the engine asks for
 */
export function restFor(rests: number, random: number, retry_after_ms: number | undefined): number {
  if (retry_after_ms !== undefined) return Math.min(LONGEST_MS, Math.max(0, retry_after_ms));
  return Math.round(random * Math.min(CAP_MS, BASE_MS * FACTOR ** rests));
}
