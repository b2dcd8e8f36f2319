/** Thrown while a tokenizer.json is read, where it asks for something that cannot be followed exactly. */
export class Inexact extends Error {
  override readonly name = 'Inexact';
}

/** A part of a tokenizer.json: its kind in `type`, its settings beside it. */
export type Part = Readonly<Record<string, unknown>>;

/** @throws Inexact where the value is no object */
export function part(value: unknown): Part {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Inexact('not an object');
  return value as Part;
}

/** @throws Inexact where the value is no list */
export function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new Inexact('not a list');
  return value as readonly unknown[];
}

/** @throws Inexact where the value is no text */
export function text(value: unknown): string {
  if (typeof value !== 'string') throw new Inexact('not a text');
  return value;
}

/** @throws Inexact where the value is no id of a token */
export function tokenId(value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 0x3fffffff) {
    throw new Inexact('not a token id');
  }
  return value;
}

/** The setting of a name, `fallback` where it is left out. @throws Inexact where it is neither true nor false */
export function flag(settings: Part, name: string, fallback: boolean): boolean {
  const value = settings[name] ?? fallback;
  if (typeof value !== 'boolean') throw new Inexact(`${name} is neither true nor false`);
  return value;
}
