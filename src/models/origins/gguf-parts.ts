/** `-00002-of-00003.gguf` at the end of a name. */
const PART = /-(\d{5})-of-(\d{5})\.gguf$/i;
const QUANT =
  /(?:^|[^A-Za-z0-9])((?:I?Q\d(?:_[A-Z0-9]+)*|F16|F32|BF16|MXFP4|TQ\d_\d)(?:_[A-Z]+)*)(?=[^A-Za-z0-9_]|$)/i;
/** Beside a model, and none themselves. */
const COMPANION = /(^|[./_-])(mmproj|imatrix)/i;

/** What is before the number of a part, and how many there are. */
export function partOfSet(name: string): { stem: string; index: number; count: number } | undefined {
  const match = PART.exec(name);
  if (!match) return undefined;
  return { stem: name.slice(0, match.index), index: Number(match[1]), count: Number(match[2]) };
}

/** Models among files: single ones, and the parts of those that are split, each in order and complete. */
export function ggufModels(names: readonly string[]): string[][] {
  const sets = new Map<string, string[]>();
  for (const name of names) {
    if (!/\.gguf$/i.test(name) || COMPANION.test(baseName(name))) continue;
    const part = partOfSet(name);
    const key = part ? `${part.stem}-of-${part.count}` : name;
    sets.set(key, [...(sets.get(key) ?? []), name]);
  }
  return [...sets.values()].map((parts) => parts.toSorted()).filter(isComplete);
}

/** Models of one quantisation; the file's own name counts more than its folder's. */
export function ofQuant(models: readonly string[][], quant: string): string[][] {
  const escaped = quant.replaceAll(/[.-]/g, '\\$&');
  const pattern = new RegExp(`(?:^|[^A-Za-z0-9])${escaped}(?=[^A-Za-z0-9_]|$)`, 'i');
  const byName = models.filter(([first = '']) => pattern.test(baseName(first)));
  return byName.length > 0 ? byName : models.filter(([first = '']) => pattern.test(first));
}

/** Quantisations by their names, for a message. */
export function quantsOf(models: readonly string[][]): string[] {
  const found = models.map(([first = '']) => (QUANT.exec(baseName(first)) ?? QUANT.exec(first))?.[1]);
  return [...new Set(found.filter((quant) => quant !== undefined))];
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function isComplete(parts: readonly string[]): boolean {
  return parts.every((name, at) => {
    const part = partOfSet(name);
    return part === undefined ? parts.length === 1 : part.index === at + 1 && part.count === parts.length;
  });
}
