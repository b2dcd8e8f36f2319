/** Fonts with the same metrics on every system that has one of them, so that a layout made here fits there. */
export const FONT = "Arial, Helvetica, 'Liberation Sans', Arimo, sans-serif";

/** Advance widths of that family in thousandths of the font size. */
const ADVANCE: readonly [number, string][] = [
  [191, "'"],
  [222, 'ijl‘’'],
  [278, ' !,./:;I[\\]ft'],
  [333, '()-`r“”'],
  [355, '"'],
  [389, '*'],
  [469, '^'],
  [500, 'Jckvsxyz'],
  [584, '+<=>~'],
  [611, 'FTZ'],
  [667, '&ABEKPSVXY'],
  [722, 'CDHNRUw'],
  [778, 'GOQ'],
  [833, 'Mm'],
  [889, '%'],
  [944, 'W'],
  [1015, '@'],
];
const advances = new Map(
  ADVANCE.flatMap(([width, chars]) => [...chars].map((char) => [char, width] as const)),
);

/** Pixels a line of text takes. Bold is widened by its average, which is within a pixel for short names. */
export function textWidth(text: string, size: number, bold = false): number {
  let thousandths = 0;
  for (const char of text) thousandths += advances.get(char) ?? 556;
  return (thousandths / 1000) * size * (bold ? 1.08 : 1);
}
