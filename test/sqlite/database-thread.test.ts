import test from 'ava';
import { DatabaseThread } from '../../src/sqlite/database-thread.ts';
import { StoreError } from '../../src/sqlite/store-error.ts';

const PROGRAM = new URL('fragile-thread.ts', import.meta.url);

test('a thread that dies fails its batch, and the next one gets a new thread', async (t) => {
  const thread = await DatabaseThread.open<string, string>(PROGRAM, {});
  t.is(await thread.write('one'), 'one 1');
  t.is(await thread.write('two'), 'two 2');
  await t.throwsAsync(thread.write('die'), {
    instanceOf: StoreError,
    message: 'the database thread has died',
  });
  t.is(await thread.write('three'), 'three 1');
  await thread.close();
});

test('an error fails its batch alone', async (t) => {
  const thread = await DatabaseThread.open<string, string>(PROGRAM, {});
  await t.throwsAsync(thread.write('fail'), { instanceOf: StoreError, message: 'no room' });
  t.is(await thread.write('one'), 'one 2');
  await thread.close();
});

test('what cannot be opened is said with its code', async (t) => {
  const error = await t.throwsAsync(DatabaseThread.open(PROGRAM, { refuse: true }), {
    instanceOf: StoreError,
    message: 'is in use',
  });
  t.is(error?.code, 'in_use');
});
