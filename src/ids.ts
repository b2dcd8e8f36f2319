import { randomBytes } from 'node:crypto';

/** Random digits after a UUID’s version: 74 bits, as 3 + 3 + 12 hexadecimal digits and the two bits of the variant. */
const DIGITS = 19;
const VARIANTS = ['8', '9', 'a', 'b'];

/** One system call for many ids: a call each would be the dearest step of an admission. */
const IDS_AT_ONCE = 512;
let digits = '';
let used = 0;
let stamped = { at: -1, text: '' };

/** A UUIDv7 (RFC 9562), for what the server names itself. */
export function newId(): string {
  const now = Date.now();
  if (now !== stamped.at) {
    const time = now.toString(16).padStart(12, '0');
    stamped = { at: now, text: `${time.slice(0, 8)}-${time.slice(8)}-7` };
  }
  return flat(`${stamped.text}${tail(random(DIGITS))}`);
}

/** A UUIDv4 for a request that brought no correlation id. */
export function newCorrelationId(): string {
  const head = random(12);
  return flat(`${head.slice(0, 8)}-${head.slice(8)}-4${tail(random(DIGITS))}`);
}

function random(length: number): string {
  if (used + length > digits.length) {
    digits = randomBytes((IDS_AT_ONCE * DIGITS) / 2).toString('hex');
    used = 0;
  }
  return digits.slice(used, (used += length));
}

/** What follows the version in a UUID. */
function tail(from: string): string {
  const variant = VARIANTS[Number.parseInt(from.charAt(0), 16) & 3] as string;
  return `${from.slice(1, 4)}-${variant}${from.slice(4, 7)}-${from.slice(7)}`;
}

/** The one spelling of a UUID: they are compared without regard to case, and kept in lower case. */
export function canonicalId(uuid: string): string {
  return uuid.toLowerCase();
}

/** A joined string keeps all its pieces, some 400 bytes for an id; this makes it one string of 48. */
function flat(joined: string): string {
  return joined.toLowerCase();
}
