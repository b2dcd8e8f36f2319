import { randomFillSync, randomUUID } from 'node:crypto';
import { v7 } from 'uuid';

const BYTES = 16;
/** One system call for 256 ids: a call each would be the dearest step of an admission. */
const pool = new Uint8Array(256 * BYTES);
let used = pool.length;

/** A UUIDv7, for what the server names itself. */
export function newId(): string {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const random = pool.subarray(used, (used += BYTES));
  return v7({ random });
}

/** A UUIDv4 for a request that brought no correlation id. */
export function newCorrelationId(): string {
  // Node joins it from pieces that stay in memory with it, 416 bytes in all; this makes it one string of 48.
  return randomUUID().toLowerCase();
}
