import { systemClock } from '../clock.ts';
import type { Config } from '../config.ts';
import { programEnvironment } from '../config/program-environment.ts';
import { modelsOf } from '../blueprint.ts';
import { planOf } from '../pool-plan.ts';
import { Engines } from '../provisioning/engines.ts';
import { printSteps } from './print-steps.ts';

/** What every pool of a configuration would have done before it serves; nothing is done. */
export async function printPlan(config: Config): Promise<void> {
  const env = programEnvironment(process.env);
  const engines = new Engines({ policy: config.policy, env, clock: systemClock });
  const models = modelsOf(config, { clock: systemClock, random: Math.random, hub: undefined });
  try {
    for (const pool of config.pools) {
      process.stdout.write(`pool ${pool.id}:\n`);
      printSteps(await planOf(pool, config, engines, env, (ref) => models.source().locate(ref)));
    }
  } finally {
    await models.close();
  }
}
