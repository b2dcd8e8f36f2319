/** A pool as its configuration has it, and what its one or several engines are on. */
interface Placed {
  devices: readonly number[];
  tensor_split?: readonly number[];
}

/**
 * What part of a pool's model is on each of its devices, in their order; on the host where it has none. Equal parts where
 * nothing was said.
 * @returns 1 in all
 */
export function sharesOf({ devices, tensor_split = [] }: Placed): number[] {
  const parts = tensor_split.length > 0 ? tensor_split : devices.map(() => 1);
  const whole = parts.reduce((sum, part) => sum + part, 0);
  return parts.length === 0 ? [1] : parts.map((part) => part / whole);
}
