import test from 'ava';
import type { TaskRequest } from '../../src/contract/generated/types.ts';
import { digestOf, hashAhead } from '../../src/contract/request-digest.ts';
import { request } from '../helpers/server.ts';

const LONG = 'Once upon a time. '.repeat(1000);

test('equal requests have equal digests, whatever the order of their keys', (t) => {
  const turned = Object.fromEntries(Object.entries(request).toReversed()) as unknown as TaskRequest;
  t.is(digestOf(turned), digestOf(request));
  t.not(digestOf({ ...request, seed: 1 }), digestOf(request));
  t.not(digestOf({ ...request, prompt: LONG }), digestOf({ ...request, prompt: `${LONG}.` }));
});

test('a hash that was made ahead changes no digest, also where other texts are as long', (t) => {
  for (const prompt of ['short', LONG]) {
    const posted: TaskRequest = { ...request, prompt, messages: [{ role: 'user', content: `${LONG}!` }] };
    const digest = digestOf({ ...posted });
    hashAhead(posted);
    t.is(digestOf(posted), digest);
  }
});
