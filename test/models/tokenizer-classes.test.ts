import test from 'ava';
import {
  LETTER,
  NUMBER,
  OTHER,
  PUNCTUATION,
  SPACE,
  unicodeClasses,
} from '../../src/models/tokenizer/unicode-classes.ts';

test('every class is part of the runtime’s own, and white space is the same', (t) => {
  const classes = unicodeClasses();
  const same = (point: number, mask: number, property: RegExp): boolean =>
    ((classes[point] ?? 0) & mask) === 0 || property.test(String.fromCodePoint(point));
  for (let point = 0; point < classes.length; point += 1) {
    if (point >= 0xd800 && point < 0xe000) continue;
    const fits =
      same(point, LETTER, /^\p{L}$/u) &&
      same(point, NUMBER, /^\p{N}$/u) &&
      same(point, PUNCTUATION, /^\p{P}$/u);
    const space = ((classes[point] ?? 0) & SPACE) !== 0;
    if (!fits || space !== /^\p{White_Space}$/u.test(String.fromCodePoint(point))) {
      t.fail(`U+${point.toString(16)} is in the wrong class`);
    }
  }
  t.pass();
});

test('the classes count as many characters as Unicode 15.1 has', (t) => {
  const sizes = new Map([LETTER, NUMBER, SPACE, PUNCTUATION].map((kind) => [kind, 0]));
  for (const value of unicodeClasses()) {
    for (const [kind, size] of sizes) if ((value & kind) !== 0) sizes.set(kind, size + 1);
  }
  t.deepEqual(
    [...sizes],
    [
      [LETTER, 136_726],
      [NUMBER, 1_831],
      [SPACE, 25],
      [PUNCTUATION, 842],
    ],
  );
});

test('what newer standards call a letter is none yet', (t) => {
  const classes = unicodeClasses();
  t.is(classes[0x1c89], OTHER);
  t.is(classes[0x323b0], OTHER);
});
