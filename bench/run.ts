/** Runs benches by name: `npm run bench -- admission`, or all of them without a name. */
import { print, stopAll, type Bench } from './harness.ts';

const benches: Readonly<Record<string, () => Promise<{ default: Bench }>>> = {
  admission: () => import('./admission.ts'),
  recovery: () => import('./recovery.ts'),
  resume: () => import('./resume.ts'),
  audience: () => import('./audience.ts'),
  relay: () => import('./relay.ts'),
  memory: () => import('./memory.ts'),
  'loop-delay': () => import('./loop-delay.ts'),
  start: () => import('./start.ts'),
};

/** A bench that takes longer than this hangs. */
const LIMIT_MS = 120_000;

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(benches);
const unknown = names.find((name) => !(name in benches));
if (unknown !== undefined) {
  process.stderr.write(`there is no bench "${unknown}"; benches are ${Object.keys(benches).join(', ')}\n`);
  process.exit(2);
}

// Whoever reads the table may have seen enough.
process.stdout.on('error', () => void stopAll().then(() => process.exit(0)));

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void stopAll().then(() => process.exit(130)));

for (const name of names) {
  const limit = setTimeout(() => {
    process.stderr.write(`bench ${name} takes longer than ${LIMIT_MS / 1000} s and is stopped\n`);
    void stopAll().then(() => process.exit(1));
  }, LIMIT_MS);
  try {
    const bench = await benches[name]?.();
    if (bench) print(name, await bench.default());
  } finally {
    clearTimeout(limit);
    await stopAll();
  }
}
