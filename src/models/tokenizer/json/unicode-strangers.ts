/**
 * Characters about which the runtime and the tokenizers library disagree, since each follows a Unicode version of its
 * own (17 here; 16 in its regular expressions, 12 in its normal forms): a text that has one cannot be counted exactly.
 * Ranges in ascending order, in base 36: the distance from the end of the range before, then `+` and how many code
 * points follow the first.
 */
const CLASSES =
  'id 16h r0 3j 2r6+e 2+b 15h 250 ojb+1 2 1 s gk1+f cd+1 1i+6 29d+p 12j+2 8+8 x+1 2g4+7 g8+17 4+9 fxy+o 2+o ' +
  '7y+4 4qp+7 zt+l 2p+36 cg7+2 cd+m f+g 4pb+u 1+l 8+1 34o 4e+3 9h+8 aj+3 1e 3 1l 4 s 4 7e 10zj+5 4ma+b gsi+3bd';

const NORMAL_FORMS =
  '1kt 49+8 16+9 8a fx 72+1 al 1ne q1+u 2+b lm+4 45g n3l+3 1j n0 hun q bg+4 1+15 1+8 12h+3 1t+4 8t+1 25+1 ' +
  '1+2 1y+a 1d+3 6i ju 1z 1 8 2 1f 1+1 5+2 3x re+1 71 4+1 4 4c 2b i 29 iw 1+1 29 bt+1 d0e+7 6 2ew+2 hx+1 ' +
  'ick+z 3sm+1p x 4g+6 af 1p+3 e4+3 72+1 6r 2 7+1 5 22e 22r+9';

/** Finds a character whose class the two disagree about. */
export const CLASS_STRANGER = anyOf(CLASSES);
/** Finds a character whose normal forms the two disagree about. */
export const FORM_STRANGER = anyOf(NORMAL_FORMS);

function anyOf(ranges: string): RegExp {
  let at = 0;
  const parts = ranges.split(' ').map((range) => {
    const [gap = '', more = '0'] = range.split('+');
    const first = at + Number.parseInt(gap, 36);
    const last = first + Number.parseInt(more, 36);
    at = last + 1;
    return `\\u{${first.toString(16)}}-\\u{${last.toString(16)}}`;
  });
  return new RegExp(`[${parts.join('')}]`, 'u');
}
