import type { Config } from '../contract/generated/types.ts';
import type { Mistake } from './checks.ts';
import type { Environment } from './environment.ts';

const REFERENCE = /^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$/u;

/**
 * Puts the value in the place of each `${NAME}` among the keys of external servers, and hides every key from whoever
 * lists, prints or serializes the configuration: it can be read by its name alone.
 */
export function takeSecrets(config: Config, env: Environment): Mistake | undefined {
  for (const [index, pool] of config.pools.entries()) {
    const external = pool.engine === 'synthetic' ? undefined : pool.provisioning.external;
    if (external?.api_key === undefined) continue;
    const [, name] = REFERENCE.exec(external.api_key) ?? [];
    const value = name === undefined ? external.api_key : env[name]?.trim();
    if (value === undefined || !/^[\x21-\x7e]+$/u.test(value)) {
      const keys = ['pools', index, 'provisioning', 'external', 'api_key'];
      const problem = value ? 'holds no key: there are blanks or other characters in it' : 'is not set';
      return { keys, message: `the environment variable ${name ?? ''} ${problem}` };
    }
    Object.defineProperty(external, 'api_key', { value, enumerable: false });
  }
  return undefined;
}
