import { type Failure, failure } from '../errors.ts';
import { redact } from '../observe/redact.ts';
import { connectionFailure, refusal } from './llamacpp/upstream.ts';

/** What a server says went wrong, whatever words it has for it. */
export interface Complaint {
  message: string;
  /** HTTP status that the server itself gives it, where it is told inside a stream. */
  status?: number;
  /** Code, type and parameter, for telling one cause from another. */
  marks: readonly string[];
}

const SHOWN_CHARACTERS = 300;

const OVERFLOW_MARKS = ['context_length_exceeded', 'exceed_context_size_error', 'input_tokens', 'input_text'];
const OVERFLOW_TEXT =
  /context (length|size|window)|maximum .{0,40}(tokens|length)|too large|must be <= \d+\. Given/iu;

/** Words of TGI for what HTTP has a status for; its streams are always 200. */
const STATUS_OF_TYPE: Readonly<Record<string, number>> = {
  validation: 422,
  overloaded: 429,
  generation: 500,
  incomplete_generation: 500,
  incomplete_generation_stream: 500,
  template_error: 422,
  tool_error: 422,
};

/**
 * The complaint in a body or frame: `{error: {message, type, code, param}}`, `{error: "text"}` with or without an
 * `error_type`, `{object: "error", message}`, `{detail}` or plain text.
 */
export function complaintOf(body: unknown): Complaint | undefined {
  if (typeof body === 'string') return body.trim() === '' ? undefined : { message: body, marks: [] };
  if (!isRecord(body)) return undefined;
  const { error, error_type, detail } = body;
  if (typeof error === 'string') return complaint(error, typeof error_type === 'string' ? [error_type] : []);
  if (isRecord(error)) return fromRecord(error);
  if (body['object'] === 'error') return fromRecord(body);
  if (detail !== undefined)
    return complaint(typeof detail === 'string' ? detail : 'the request is not valid', []);
  return undefined;
}

/** A refusal before the stream. @returns a member of the family, in one line */
export function refusalOf(status: number, body: unknown, retryAfter?: unknown): Failure {
  const said = complaintOf(body);
  if (status >= 300 && status < 400) {
    return failure(
      'POOL_UNAVAILABLE',
      `The engine answered with a redirect (HTTP ${status}), which is not followed; configure the address it leads to.`,
    );
  }
  if (said !== undefined && status >= 400 && ![401, 403, 404].includes(status) && isOverflow(said)) {
    return failure('INVALID_PARAMS', `The input does not fit: ${oneLine(said.message)}`);
  }
  const message = typeof body === 'string' || said === undefined ? undefined : oneLine(said.message);
  return refusal(status, message === undefined ? undefined : { error: { message } }, retryAfter);
}

/** An error that came inside the stream. @param started whether output came before it */
export function streamFailure(said: Complaint, started: boolean): Failure {
  if (!started) {
    if (isOverflow(said))
      return failure('INVALID_PARAMS', `The input does not fit: ${oneLine(said.message)}`);
    if (said.status !== undefined) return refusalOf(said.status, { error: said.message });
    return failure('POOL_UNAVAILABLE', `The engine failed before it began: ${oneLine(said.message)}`);
  }
  return failure('WORKER_RESET', `The engine failed mid-stream: ${oneLine(said.message)}`);
}

/** A connection that will not get better by asking again: no such name, no HTTP, no certificate to trust. */
export function isHopeless(error: unknown): boolean {
  const codes = codesOf(error);
  return (
    connectionFailure(error, false).message.includes('not HTTP') ||
    codes.some((code) => code === 'ENOTFOUND' || /CERT|ISSUER|SIGNATURE|ERR_TLS|ERR_SSL|EPROTO/u.test(code))
  );
}

/**
 * The failure without what must not be told: a secret is blanked, and where the engine quotes what it was asked, its
 * words end.
 */
export function withholding(
  cause: Failure,
  secret: string | undefined,
  texts: readonly string[] = [],
): Failure {
  let { message } = cause;
  if (secret !== undefined && secret !== '') message = message.replaceAll(secret, '[key]');
  for (const text of texts) {
    const begin =
      text
        .trim()
        .split(/["'\\\n\r]/u)[0]
        ?.slice(0, QUOTE_CHARACTERS) ?? '';
    const at = begin.length < MIN_QUOTE_CHARACTERS ? -1 : message.indexOf(begin);
    if (at !== -1) message = `${message.slice(0, at).trimEnd()} …`;
  }
  return message === cause.message ? cause : { ...cause, message };
}

const QUOTE_CHARACTERS = 24;
const MIN_QUOTE_CHARACTERS = 8;

function isOverflow({ message, marks }: Complaint): boolean {
  return marks.some((mark) => OVERFLOW_MARKS.includes(mark)) || OVERFLOW_TEXT.test(message);
}

function fromRecord(error: Record<string, unknown>): Complaint {
  const { message, code, type, param, http_status_code } = error;
  const status = [http_status_code, code].find((each) => typeof each === 'number');
  const marks = [code, type, param].filter((each) => typeof each === 'string');
  return {
    ...complaint(typeof message === 'string' ? message : 'unknown error', marks),
    ...(typeof status === 'number' && status >= 400 && status < 600 ? { status } : {}),
  };
}

function complaint(message: string, marks: readonly string[]): Complaint {
  const status = marks.map((mark) => STATUS_OF_TYPE[mark]).find((each) => each !== undefined);
  return { message, marks, ...(status === undefined ? {} : { status }) };
}

function oneLine(text: string): string {
  const line = redact(text).replaceAll(/\s+/gu, ' ').trim();
  return line.length > SHOWN_CHARACTERS ? `${line.slice(0, SHOWN_CHARACTERS - 1)}…` : line;
}

function codesOf(error: unknown): string[] {
  if (!isRecord(error)) return [];
  const code = typeof error['code'] === 'string' ? [error['code']] : [];
  const nested = Array.isArray(error['errors']) ? (error['errors'] as unknown[]).flatMap(codesOf) : [];
  return [...code, ...nested, ...codesOf(error['cause'])];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
