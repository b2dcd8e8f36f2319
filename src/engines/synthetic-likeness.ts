import { createHash } from 'node:crypto';
import { unit } from './vectors.ts';

const DIMENSIONS = 16;

/** A vector of length 1 that depends on the text and on nothing else; texts that mean the same are strangers to it. */
export function syntheticVector(text: string): number[] {
  const hash = createHash('sha256').update(text).digest();
  return unit(Array.from({ length: DIMENSIONS }, (_, i) => hash.readInt16BE(i * 2)));
}

/** The share of the query's words that the document has, 0 to 1; 0 for a query without words. */
export function syntheticScore(query: string, document: string): number {
  const [wanted, there] = [wordsOf(query), wordsOf(document)];
  return wanted.size === 0 ? 0 : [...wanted].filter((word) => there.has(word)).length / wanted.size;
}

function wordsOf(text: string): Set<string> {
  return new Set(text.toLowerCase().match(/[\p{L}\p{N}]+/gu));
}
