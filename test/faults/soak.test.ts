import test from 'ava';
import { soak } from '../../bench/soak.ts';
import { verdict } from '../../bench/harness.ts';

for (const [store, tasks] of [
  ['sqlite', 2000],
  ['memory', 1000],
] as const)
  test.serial(
    `${tasks} tasks of all kinds leave nothing behind, with a store of kind ${store}`,
    async (t) => {
      const { measures, mishaps } = await soak({ tasks, warm_up: 1000, clients: 60, store, seed: 1 });
      t.deepEqual(mishaps, []);
      t.deepEqual(
        measures.filter((measure) => verdict(measure) === 'missed'),
        [],
      );
      t.log(
        measures
          .map(({ what, value, unit }) => `${what}: ${Number(value.toPrecision(3))} ${unit}`)
          .join('; '),
      );
    },
  );
