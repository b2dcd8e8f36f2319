import type { Config } from '../contract/generated/types.ts';
import type { Mistake } from './checks.ts';
import type { Environment } from './environment.ts';
import type { KeyPath } from './error.ts';

const REFERENCE = /^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$/u;

/**
 * Puts the value in the place of each `${NAME}` among the keys of external servers and the environments of servers that
 * are started here, and hides them from whoever lists, prints or serializes the configuration: they can be read by name
 * alone.
 */
export function takeSecrets(config: Config, env: Environment): Mistake | undefined {
  for (const [index, pool] of config.pools.entries()) {
    if (pool.engine === 'synthetic') continue;
    const at = (...keys: string[]): KeyPath => ['pools', index, 'provisioning', ...keys];
    const { external } = pool.provisioning;
    if (external?.api_key !== undefined) {
      const { value, problem } = valueOf(external.api_key, env);
      if (problem !== undefined) return { keys: at('external', 'api_key'), message: problem };
      if (!/^[\x21-\x7e]+$/u.test(value))
        return {
          keys: at('external', 'api_key'),
          message: `the environment variable ${nameIn(external.api_key) ?? ''} holds no key: there are blanks or other characters in it`,
        };
      Object.defineProperty(external, 'api_key', { value, enumerable: false });
    }
    const variables: Record<string, string> = {};
    for (const [name, text] of Object.entries(pool.provisioning.env)) {
      const { value, problem } = valueOf(text, env);
      if (problem !== undefined) return { keys: at('env', name), message: problem };
      variables[name] = value;
    }
    Object.defineProperty(pool.provisioning, 'env', { value: variables, enumerable: false });
  }
  return undefined;
}

function nameIn(text: string): string | undefined {
  return REFERENCE.exec(text)?.[1];
}

function valueOf(text: string, env: Environment): { value: string; problem?: string } {
  const name = nameIn(text);
  const value = name === undefined ? text : (env[name]?.trim() ?? '');
  return name !== undefined && value === ''
    ? { value, problem: `the environment variable ${name} is not set` }
    : { value };
}
