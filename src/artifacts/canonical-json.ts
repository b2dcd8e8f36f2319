/**
 * The one text of a JSON value: keys in the order of their UTF-16 code units, no blanks, numbers and strings as
 * `JSON.stringify` writes them (RFC 8785). Fields that are undefined are left out. Not for values nested so deep that
 * a stack could not hold them.
 */
export function canonicalJson(value: unknown): string {
  if (typeof value === 'number') return Number.isFinite(value) ? `${value}` : 'null';
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  let text = '';
  if (Array.isArray(value)) {
    for (const item of value) text += `${text === '' ? '' : ','}${canonicalJson(item)}`;
    return `[${text}]`;
  }
  const fields = value as Record<string, unknown>;
  for (const key of inOrder(Object.keys(fields))) {
    const field = fields[key];
    if (field === undefined) continue;
    text += `${text === '' ? '"' : ',"'}${PLAIN.test(key) ? key : JSON.stringify(key).slice(1, -1)}":${canonicalJson(field)}`;
  }
  return `{${text}}`;
}

/** Of names like these the text is the name. */
const PLAIN = /^\w*$/;

/** A list of names is mostly short, and often in order already: looking costs less than sorting. */
function inOrder(keys: string[]): string[] {
  for (let place = 1; place < keys.length; place++)
    if ((keys[place - 1] as string) > (keys[place] as string)) return keys.sort();
  return keys;
}
