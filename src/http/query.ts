import type { Context } from 'koa';
import { failure, TaskchartError } from '../errors.ts';
import { canonicalId } from '../ids.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** @throws TaskchartError INVALID_PARAMS where it is given and no whole number in these bounds */
export function wholeNumber(
  name: string,
  text: string | undefined,
  bounds: { from?: number; to?: number; right?: string } = {},
): number | undefined {
  const { from = 0, to = 999_999_999_999_999, right = `a whole number from ${from} to ${to}` } = bounds;
  if (text === undefined) return undefined;
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (number >= from && number <= to) return number;
  throw invalid(name, right, text);
}

/** @throws TaskchartError INVALID_PARAMS */
export function oneOf<T extends string>(
  name: string,
  text: string | undefined,
  values: readonly T[],
): T | undefined {
  if (text === undefined) return undefined;
  if ((values as readonly string[]).includes(text)) return text as T;
  throw invalid(name, `one of ${values.join(', ')}`, text);
}

/** @throws TaskchartError INVALID_PARAMS */
export function yesOrNo(name: string, text: string | undefined): boolean {
  const word = oneOf(name, text?.toLowerCase(), ['true', 'false', '1', '0', '']) ?? 'false';
  return word !== 'false' && word !== '0';
}

/** @returns it in lower case. @throws TaskchartError INVALID_PARAMS */
export function uuid(name: string, text: string): string;
export function uuid(name: string, text: string | undefined): string | undefined;
export function uuid(name: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  if (UUID.test(text)) return canonicalId(text);
  throw invalid(name, 'a UUID', text);
}

/** One value of the query; of several the first. */
export function queryOf(ctx: Context, name: string): string | undefined {
  const value = ctx.query[name];
  return Array.isArray(value) ? value[0] : value;
}

export function shorten(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

function invalid(name: string, right: string, text: string): TaskchartError {
  return new TaskchartError(failure('INVALID_PARAMS', `${name}: must be ${right}, got "${shorten(text)}"`));
}
