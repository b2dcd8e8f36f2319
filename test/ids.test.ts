import test from 'ava';
import { newCorrelationId, newId } from '../src/ids.ts';

test('ids are UUIDs of version 7: different, and in the order of their milliseconds', (t) => {
  const ids = Array.from({ length: 3000 }, newId);
  t.is(new Set(ids).size, ids.length);
  const before = Date.now();
  const id = newId();
  t.regex(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const at = Number.parseInt(id.replace('-', '').slice(0, 12), 16);
  t.true(at >= before && at <= Date.now());
  for (const variant of '89ab') t.true(ids.some((other) => other[19] === variant));
});

test('correlation ids are UUIDs of version 4', (t) => {
  t.regex(newCorrelationId(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});
