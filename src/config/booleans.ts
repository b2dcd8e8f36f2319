import type { Fields } from '../contract/generated/fields.js';
import { isMap, type Settings } from './layers.ts';

/** What a text says as yes or no: `true`, `false`, `1` or `0` in any case; undefined where it is something else. */
export function booleanOf(text: string): boolean | undefined {
  if (/^(true|1)$/i.test(text)) return true;
  return /^(false|0)$/i.test(text) ? false : undefined;
}

/**
 * The same settings, in which whatever is to be yes or no may have been written as in a variable: as 1, 0, or a text.
 * What says neither stays, so that the check of all settings names it.
 */
export function withBooleans(settings: Settings, fields: Fields): Settings {
  return read(settings, '') as Settings;

  function read(value: unknown, path: string): unknown {
    if (Array.isArray(value)) return value.map((each) => read(each, `${path}[]`));
    if (isMap(value))
      return Object.fromEntries(
        Object.entries(value).map(([key, each]) => [key, read(each, path === '' ? key : `${path}.${key}`)]),
      );
    const isText = typeof value === 'string' || typeof value === 'number';
    return isText && fields[path]?.type === 'boolean' ? (booleanOf(String(value)) ?? value) : value;
  }
}
