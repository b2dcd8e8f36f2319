import { hash } from 'node:crypto';

/** The shortest value that counts as a secret: anything shorter is a number or a word. */
const SHORTEST = 8;

/** A value that was blanked already is left alone, so that blanking twice says the same. */
const VALUE = String.raw`(?!\*{4}[0-9a-f]{6})[^\s"'\x60,;&<>)}\]\\]{${SHORTEST},}`;
/** What may stand between a name and its value: `=`, `:` and quotes, also those of JSON inside of JSON. */
const BETWEEN = String.raw`\\?["']?\s*[:=]\s*\\?["']?`;
/** `max_tokens` is none of these, `access_token` and `x-api-key` are. */
const NAME = String.raw`(?:token|api[_-]?key)`;

const PATTERNS: readonly RegExp[] = [
  new RegExp(
    String.raw`(\b(?:proxy-)?authorization${BETWEEN}(?:(?:bearer|basic|token|digest)\s+)?)(${VALUE})`,
    'giu',
  ),
  new RegExp(String.raw`(\bbearer\s+)(${VALUE})`, 'giu'),
  new RegExp(String.raw`(${NAME}${BETWEEN})(${VALUE})`, 'giu'),
];

/** One look decides for nearly every text. */
const SUSPICIOUS = /token|api[_-]?key|authorization|bearer/iu;

/** Tells secrets apart without telling them: the first 6 hex digits of the SHA-256. */
export function fingerprint(secret: string): string {
  return hash('sha256', secret, 'hex').slice(0, 6);
}

/**
 * A text from elsewhere without its credentials: what follows `Authorization`, `Bearer`, `X-API-Key`, `token` and
 * `api_key`, from 8 characters on, becomes `****` and its fingerprint. Everything else stays as it is.
 */
export function redact(text: string): string {
  if (!SUSPICIOUS.test(text)) return text;
  return PATTERNS.reduce(
    (redacted, pattern) =>
      redacted.replace(pattern, (_, name: string, value: string) => `${name}****${fingerprint(value)}`),
    text,
  );
}
