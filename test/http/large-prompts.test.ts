import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { PerformanceObserver, type PerformanceEntry } from 'node:perf_hooks';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import type { LoadAnswer, LoadQuestion } from '../../bench/programs/load.ts';
import { gather, spread } from '../../src/http/gather.ts';
import { readGgufVocabulary } from '../../src/models/gguf.ts';
import { countTokens, createTokenizer } from '../../src/models/tokenizer/tokenizer.ts';
import { request, startTestServer, type TestServer } from '../helpers/server.ts';
import { STORYTELLER } from '../models/tokenizer-files.ts';

const PROSE = 'Once upon a time the quick brown fox jumped over a lazy dog, and "ran" into the forest.\n';
const CJK = '很久很久以前，森林里住着一只狐狸。むかしむかし、森に狐が住んでいました。';

/** Counted in a thread and refused for its length. */
const COUNTED = { engine: 'llamacpp', model_ref: 'storyteller', ctx: 256 } as const;
/** Admitted, and run by an engine that has room for it. */
const ROOMY = { ctx: 1_000_000_000, max_tokens: 1 };

let server: TestServer;
/** In a process of its own: what clients take of the loop must not be measured. */
let clients: ChildProcess;

test.before(async () => {
  server = await startTestServer({
    retention: { max_tasks: 4 },
    pools: [
      { id: 'counted', engine: 'llamacpp', model: 'storyteller', preload: false },
      { id: 'roomy', engine: 'synthetic', model: 'synthetic', ctx: 2_000_000_000, slots: 8 },
    ],
  });
  clients = fork(fileURLToPath(new URL('../../bench/programs/load.ts', import.meta.url)));
});
test.after.always(async () => {
  clients.disconnect();
  await server.close();
});

/**
 * Samples every millisecond how long the thread of the event loop has worked since the last sample. The delay of the
 * loop by the clock would tell as much about what else the machine does; `npm run bench -- loop-delay` has that. The
 * collector's pauses are taken off: a hundred prompts of a megabyte a second give it as much to do as it can, and how
 * long it takes for that depends on who shares the cores with its threads.
 */
class Probe {
  readonly #samples: { from: number; to: number; worked_ms: number }[] = [];
  readonly #pauses: PerformanceEntry[] = [];
  readonly #collector = new PerformanceObserver((list) => this.#pauses.push(...list.getEntries()));
  #before = { at: performance.now(), worked: threadTime() };
  readonly #timer = setInterval(() => {
    const now = { at: performance.now(), worked: threadTime() };
    const { at, worked } = this.#before;
    this.#samples.push({ from: at, to: now.at, worked_ms: now.worked - worked });
    this.#before = now;
  }, 1);

  constructor() {
    this.#collector.observe({ entryTypes: ['gc'] });
  }

  async p99(): Promise<number> {
    clearInterval(this.#timer);
    // Pauses are told in a later turn.
    await turn();
    await turn();
    this.#collector.disconnect();
    const held_ms = this.#samples.map(({ from, to, worked_ms }) => {
      const paused = this.#pauses.filter(({ startTime }) => startTime >= from && startTime < to);
      return worked_ms - paused.reduce((sum, { duration }) => sum + duration, 0);
    });
    return held_ms.toSorted((a, b) => a - b)[Math.floor(held_ms.length * 0.99)] ?? Infinity;
  }
}

/** Milliseconds on a processor so far; `process.threadCpuUsage` counts whole ticks of the kernel on some machines. */
function threadTime(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;
}

function megabyteOf(text: string): string {
  return text.repeat(Math.ceil(1_000_000 / Buffer.byteLength(text)));
}

async function post(body: string, requests: number): Promise<LoadAnswer['statuses']> {
  const question: LoadQuestion = { url: server.url, connections: 8, requests, bodies: [body] };
  const answered = once(clients, 'message');
  clients.send(question);
  const [{ statuses }] = (await answered) as [LoadAnswer];
  return statuses;
}

/** Milliseconds that this machine takes to parse a body and to write it, in the middle of several tries. */
function roundTrip(body: string): number {
  const times = Array.from({ length: 11 }, () => {
    const before = threadTime();
    JSON.stringify(JSON.parse(body));
    return threadTime() - before;
  });
  return times.toSorted((a, b) => a - b)[5] as number;
}

const kinds = [
  ['prompts of a megabyte that are counted and refused', COUNTED, PROSE, 40, '400'],
  ['prompts of a megabyte that are not ASCII', COUNTED, CJK, 40, '400'],
  ['prompts of a megabyte that are admitted', ROOMY, PROSE, 160, '202'],
] as const;

for (const [title, fields, text, requests, status] of kinds) {
  test.serial(`the event loop is not held up by ${title}`, async (t) => {
    const body = JSON.stringify({ ...request, ...fields, prompt: megabyteOf(text) });
    t.deepEqual(await post(body, 8), { [status]: 8 });
    const rounds: number[] = [];
    // What is kept is parsed and written, each in one go, which no more turns can shorten.
    const limit_ms = status === '202' ? Math.max(10, 2 * roundTrip(body)) : 10;
    // Threads that share a core with others do the same work in more time: one round in peace is enough.
    while (rounds.length < 8 && !rounds.some((p99_ms) => p99_ms < limit_ms)) {
      const probe = new Probe();
      t.deepEqual(await post(body, requests), { [status]: requests });
      rounds.push(await probe.p99());
    }
    t.log(`${Math.min(...rounds).toFixed(1)} ms, at most ${limit_ms.toFixed(1)}`);
    t.true(Math.min(...rounds) < limit_ms, `${rounds.join(' ')} ms`);
  });
}

test.serial('a large body is read to the letter, wherever it was cut on its way', async (t) => {
  const vocabulary = await readGgufVocabulary(STORYTELLER);
  const tokenizer = vocabulary && createTokenizer(vocabulary);
  if (tokenizer === undefined) return t.fail();
  const prompt = `${megabyteOf(`${CJK}x👍🏽é`)}\ud800`;
  const response = await server.post({ ...COUNTED, prompt });
  const { message } = (await response.json()) as { message: string };
  t.is(/has (\d+) tokens/.exec(message)?.[1], String(countTokens(tokenizer, prompt)));
});

test.serial('a large body that is not JSON is refused like a small one', async (t) => {
  for (const body of [`{"prompt": "${megabyteOf(PROSE)}`, megabyteOf(' ')]) {
    const response = await server.fetch('/v1/tasks', { method: 'POST', body });
    t.is(response.status, 400);
    const { code, message } = (await response.json()) as { code: string; message: string };
    t.is(code, 'INVALID_PARAMS');
    t.regex(message, /^body: is not valid JSON( \(line \d+ column \d+\))?$/);
  }
});

test('heavy steps get a turn of the event loop each, light ones share one', async (t) => {
  const seen: string[] = [];
  const note = (step: string) => (): void => void seen.push(step);
  const steps = [
    spread().then(note('heavy 1')),
    spread().then(note('heavy 2')),
    gather().then(note('light 1')),
    gather().then(note('light 2')),
  ];
  await turn();
  t.deepEqual(seen.toSorted(), ['heavy 1', 'light 1', 'light 2']);
  await Promise.all(steps);
  t.is(seen.at(-1), 'heavy 2');
});
