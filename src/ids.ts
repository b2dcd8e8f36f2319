import { randomBytes, randomUUID } from 'node:crypto';

/** Random digits of an id: 74 bits, as 3 + 3 + 12 hexadecimal digits and the two bits of the variant. */
const DIGITS = 19;
const VARIANTS = ['8', '9', 'a', 'b'];

/** One system call for many ids: a call each would be the dearest step of an admission. */
const IDS_AT_ONCE = 512;
let digits = '';
let used = 0;
let stamped = { at: -1, text: '' };

/** A UUIDv7 (RFC 9562), for what the server names itself. */
export function newId(): string {
  if (used + DIGITS > digits.length) {
    digits = randomBytes((IDS_AT_ONCE * DIGITS) / 2).toString('hex');
    used = 0;
  }
  const now = Date.now();
  if (now !== stamped.at) {
    const time = now.toString(16).padStart(12, '0');
    stamped = { at: now, text: `${time.slice(0, 8)}-${time.slice(8)}-7` };
  }
  const random = digits.slice(used, (used += DIGITS));
  const variant = VARIANTS[Number.parseInt(random.charAt(0), 16) & 3] as string;
  return flat(`${stamped.text}${random.slice(1, 4)}-${variant}${random.slice(4, 7)}-${random.slice(7)}`);
}

/** A UUIDv4 for a request that brought no correlation id. */
export function newCorrelationId(): string {
  return flat(randomUUID());
}

/** The one spelling of a UUID: they are compared without regard to case, and kept in lower case. */
export function canonicalId(uuid: string): string {
  return uuid.toLowerCase();
}

/** A joined string keeps all its pieces, some 400 bytes for an id; this makes it one string of 48. */
function flat(joined: string): string {
  return joined.toLowerCase();
}
