import { MODEL, requestOf } from './bodies.ts';
import { Program, startServerProgram, type Measure } from './harness.ts';
import type { LoadAnswer, LoadQuestion } from './programs/load.ts';
import type { LoopAnswer } from './programs/loop-server.ts';

const CONNECTIONS = 8;
const PROMPT_BYTES = 1_000_000;
const WARM_UP = 16;
/** Enough for some seconds of each kind. */
const REQUESTS = { counted: 96, admitted: 400 };

const PROSE = 'Once upon a time the quick brown fox jumped over a lazy dog, and "ran" into the forest.\n';
const CJK = '很久很久以前，森林里住着一只狐狸。むかしむかし、森に狐が住んでいました。';

/**
 * How long the event loop of a server is held while clients post prompts of a megabyte: prompts that are counted in a
 * thread and refused for their length, and prompts that are admitted.
 */
export default async function loopDelay(): Promise<Measure[]> {
  const load = new Program('bench/programs/load.ts');
  const server = await startServerProgram('bench/programs/loop-server.ts', {
    env: { NODE_ENV: 'production' },
  });
  const measure = async (fields: object, text: string, requests: number, status: string): Promise<Answer> => {
    const prompt = text.repeat(Math.ceil(PROMPT_BYTES / Buffer.byteLength(text)));
    const body = JSON.stringify({ ...requestOf(0), ...fields, prompt });
    const post = async (count: number): Promise<LoadAnswer> => {
      const question: LoadQuestion = {
        url: server.url,
        connections: CONNECTIONS,
        requests: count,
        bodies: [body],
      };
      const answer = await load.ask<LoadAnswer>(question);
      if (answer.statuses[status] !== count)
        throw new Error(`not every prompt was answered ${status}: ${JSON.stringify(answer.statuses)}`);
      return answer;
    };
    await post(WARM_UP);
    await server.program.ask('reset');
    const { seconds } = await post(requests);
    return {
      ...(await server.program.ask<LoopAnswer>('read')),
      megabytes: (requests * PROMPT_BYTES) / 1e6 / seconds,
    };
  };
  const counted = { engine: 'llamacpp', model_ref: 'storyteller', ctx: 256, max_tokens: 8 };
  const admitted = { engine: 'synthetic', model_ref: MODEL, ctx: 1_000_000_000, max_tokens: 1 };
  return [
    ...measuresOf('refused, prose', await measure(counted, PROSE, REQUESTS.counted, '400')),
    ...measuresOf('refused, CJK', await measure(counted, CJK, REQUESTS.counted, '400')),
    ...measuresOf('admitted, prose', await measure(admitted, PROSE, REQUESTS.admitted, '202')),
    ...measuresOf('admitted, CJK', await measure(admitted, CJK, REQUESTS.admitted, '202')),
  ];
}

interface Answer extends LoopAnswer {
  megabytes: number;
}

function measuresOf(name: string, { p50, p99, max, work_p99, megabytes }: Answer): Measure[] {
  return [
    { what: `${name}: loop delay, p99`, value: p99, unit: 'ms', at_most: 10 },
    { what: `${name}: loop delay, p50`, value: p50, unit: 'ms' },
    { what: `${name}: loop delay, longest`, value: max, unit: 'ms' },
    { what: `${name}: processor time of the loop in one go, p99`, value: work_p99, unit: 'ms' },
    { what: `${name}: prompts`, value: megabytes, unit: 'MB/s' },
  ];
}
