/**
 * What part of a model is on each device of its pool, in their order; on the host where it has none.
 * @param split in proportion to each other; empty where nothing was said
 * @returns 1 in all
 */
export function sharesOf(devices: readonly number[], split: readonly number[]): number[] {
  const parts = split.length > 0 ? split : devices.map(() => 1);
  const whole = parts.reduce((sum, part) => sum + part, 0);
  return parts.length === 0 ? [1] : parts.map((part) => part / whole);
}
