import type { ConfigInput } from '../../src/config.ts';
import type { PoolConfigInput } from '../../src/contract/generated/types.ts';
import type { OrchestratorPortOptions } from '../../src/embed.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { startTestServer, type TestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';

type SyntheticPoolInput = Extract<PoolConfigInput, { engine: 'synthetic' }>;

export interface SteppedSettings extends Omit<ConfigInput, 'pools'> {
  /** Of the one pool, `slow`. */
  pool?: Omit<Partial<SyntheticPoolInput>, 'engine'>;
}

export interface SteppedServer extends TestServer {
  clock: SimulatedClock;
  state: (id: string) => string | undefined;
  tokens: (id: string) => number;
  /** Moves time in steps of 10 ms until the condition holds. */
  step: (condition: () => unknown) => Promise<void>;
}

/** A server whose engine makes one token each simulated 10 ms, the first one too; time stands still unless a test moves it. */
export async function steppedServer(
  { pool, ...settings }: SteppedSettings = {},
  { clock = new SimulatedClock(), ...ports }: OrchestratorPortOptions & { clock?: SimulatedClock } = {},
): Promise<SteppedServer> {
  const server = await startTestServer(
    {
      sse: { heartbeat_ms: 0 },
      ...settings,
      pools: [
        {
          id: 'slow',
          model: 'synthetic',
          queue: { capacity: 8 },
          ...pool,
          synthetic: { first_token_ms: 10, tokens_per_second: 100, ...pool?.synthetic },
          engine: 'synthetic',
        },
      ],
    },
    { clock, ...ports },
  );
  const { core } = server.orchestrator;
  const step: SteppedServer['step'] = (condition) =>
    until(() => {
      if (condition()) return true;
      clock.advance(10);
      return false;
    }, condition.toString());
  if (pool?.preload !== false)
    await until(() => {
      clock.advance(1);
      return core.pools.get(pool?.id ?? 'slow')?.isReady;
    });
  return {
    ...server,
    clock,
    step,
    // A drain waits for its deadline on the same clock as everything else.
    async close() {
      let isClosed = false;
      const closing = server.close().then(() => (isClosed = true));
      await step(() => isClosed);
      await closing;
    },
    state: (id) => core.record(id)?.state,
    tokens: (id) => {
      const record = core.record(id);
      return record ? core.tasks.tokensOf(record) : -1;
    },
  };
}
