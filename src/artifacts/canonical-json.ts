/**
 * The one text of a JSON value: keys in the order of their UTF-16 code units, no blanks, numbers and strings as
 * `JSON.stringify` writes them (RFC 8785). Fields that are undefined are left out. Not for values nested so deep that
 * a stack could not hold them.
 */
export function canonicalJson(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  let fields = '';
  for (const key of Object.keys(value).toSorted()) {
    const field = (value as Record<string, unknown>)[key];
    if (field === undefined) continue;
    fields += `${fields === '' ? '' : ','}${JSON.stringify(key)}:${canonicalJson(field)}`;
  }
  return `{${fields}}`;
}
