/** Digits that carry every bit of the 32-bit floats that engines compute with; more would only fill the wire. */
const DIGITS = 9;

/** The vector at length 1, so that a dot product of two is their cosine; one of zeros stays as it is. */
export function unit(vector: readonly number[]): number[] {
  const length = Math.hypot(...vector) || 1;
  return vector.map((component) => Number((component / length).toPrecision(DIGITS)));
}

/** A document's place in the call, and how well it fits. */
export interface Score {
  index: number;
  score: number;
}

/** Best first; equals keep the order of the call. */
export function ranked(scores: readonly number[]): Score[] {
  return scores
    .map((score, index) => ({ index, score }))
    .sort((one, other) => other.score - one.score || one.index - other.index);
}
