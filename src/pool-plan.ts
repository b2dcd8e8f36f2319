import type { Config, PoolConfig } from './config.ts';
import { engineRequestOf, runStepOf, type ProgramEnvironment } from './engine-settings.ts';
import type { Engines } from './provisioning/engines.ts';
import { imageName } from './provisioning/image.ts';
import type { PreparedEngine, Step } from './provisioning/step.ts';

/** The path of a model that is not here yet, in a plan. */
const TO_COME = '<model>';

/**
 * Every step from nothing to a pool's engine that runs. Nothing is changed and nobody is asked; where a step is done
 * already, it is passed over when it comes to it.
 * @param locate the path of a model that is on this machine
 */
export async function planOf(
  pool: PoolConfig,
  config: Config,
  engines: Engines,
  env: ProgramEnvironment,
  locate: (model_ref: string) => Promise<string | undefined>,
): Promise<Step[]> {
  if (pool.engine === 'synthetic')
    return [{ kind: 'run', human: `Pool ${pool.id} makes up its text in this process.` }];
  if (pool.provisioning.mode === 'external')
    return [{ kind: 'run', human: `Attach pool ${pool.id} to ${pool.provisioning.external?.url ?? ''}.` }];
  const path = await locate(pool.model);
  const model: Step = {
    kind: 'model-fetch',
    human: path === undefined ? `Fetch the model ${pool.model}.` : `Check the model ${path}.`,
  };
  const request = engineRequestOf(pool);
  if (request === undefined)
    return [model, { kind: 'run', human: `Load the model of pool ${pool.id} in a child process.` }];
  const steps = engines.plan(request);
  const prepared: PreparedEngine =
    request.mode === 'container'
      ? {
          mode: 'container',
          tool: steps.find(({ kind }) => kind === 'image-pull')?.command?.[0] ?? 'podman',
          kind: steps.some(({ command }) => command?.[0] === 'docker') ? 'docker' : 'podman',
          image: imageName(request),
        }
      : {
          mode: request.mode === 'download' ? 'binary' : request.mode,
          program: engines.programOf(request),
          version: '',
        };
  const here = { id: pool.model, path: path ?? TO_COME, size_bytes: 0, verification: 'warn' as const };
  const run = runStepOf(pool, here, prepared, { config, replica_id: `${pool.id}/r0`, env });
  return [...steps, model, run];
}
