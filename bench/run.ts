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
  swap: () => import('./swap.ts'),
  saturation: () => import('./saturation.ts'),
  soak: () => import('./soak.ts'),
  'soak-memory': async () => ({ default: (await import('./soak.ts')).inMemory }),
};

/** A bench that takes longer than this hangs. */
const LIMIT_MS = 120_000;

/** Takes minutes, so it runs only where it is named, and may take this long. */
const LONG_LIMIT_MS: Readonly<Record<string, number>> = {
  soak: 1_800_000,
  'soak-memory': 1_800_000,
  saturation: 1_800_000,
};

const names =
  process.argv.length > 2
    ? process.argv.slice(2)
    : Object.keys(benches).filter((name) => !(name in LONG_LIMIT_MS));
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
  const limit_ms = LONG_LIMIT_MS[name] ?? LIMIT_MS;
  const limit = setTimeout(() => {
    process.stderr.write(`bench ${name} takes longer than ${limit_ms / 1000} s and is stopped\n`);
    void stopAll().then(() => process.exit(1));
  }, limit_ms);
  try {
    const bench = await benches[name]?.();
    if (bench) print(name, await bench.default());
  } finally {
    clearTimeout(limit);
    await stopAll();
  }
}
