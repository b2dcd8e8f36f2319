import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Config } from '../contract/generated/types.ts';
import type { Mistake } from './checks.ts';
import type { Environment } from './environment.ts';
import type { KeyPath } from './error.ts';

const REFERENCE = /^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$/u;
const SECRET = /^[\x21-\x7e]+$/u;

/** A shorter token is guessed. The schema says the same of one that stands in the configuration. */
const SHORTEST_TOKEN = 16;

/**
 * Puts the value in the place of each `${NAME}` among the tokens and the keys of external servers, reads the token's
 * file, and hides every secret from whoever lists, prints or serializes the configuration: it can be read by its name
 * alone.
 * @param folder what `auth.token_file` is relative to
 */
export function takeSecrets(config: Config, env: Environment, folder: string): Mistake | undefined {
  return takeTokens(config.auth, env, folder) ?? takeKeys(config, env);
}

function takeTokens(auth: Config['auth'], env: Environment, folder: string): Mistake | undefined {
  if (auth.token_file !== undefined) {
    const keys = ['auth', 'token_file'];
    if (auth.token !== undefined) return { keys, message: 'only goes without auth.token' };
    const path = resolve(folder, auth.token_file);
    const text = readSecret(path);
    if (typeof text === 'object') return { keys, message: `${path} cannot be read (${text.code})` };
    if (!SECRET.test(text) || text.length < SHORTEST_TOKEN)
      return { keys, message: `${path} must hold ${SHORTEST_TOKEN} or more characters without blanks` };
    hide(auth, 'token', text);
  }
  for (const name of ['token', 'worker_token'] as const) {
    const written = auth[name];
    if (written === undefined) continue;
    const keys = ['auth', name];
    const secret = resolved(written, env, keys);
    if (typeof secret === 'object') return secret;
    if (secret.length < SHORTEST_TOKEN)
      return { keys, message: `must have ${SHORTEST_TOKEN} or more characters, got ${secret.length}` };
    hide(auth, name, secret);
  }
  return undefined;
}

function takeKeys(config: Config, env: Environment): Mistake | undefined {
  for (const [index, pool] of config.pools.entries()) {
    if (pool.engine === 'synthetic') continue;
    const at = (...keys: string[]): KeyPath => ['pools', index, 'provisioning', ...keys];
    const { external, env: variables } = pool.provisioning;
    if (external?.api_key !== undefined) {
      const secret = resolved(external.api_key, env, at('external', 'api_key'));
      if (typeof secret === 'object') return secret;
      hide(external, 'api_key', secret);
    }
    const values: Record<string, string> = {};
    for (const [name, written] of Object.entries(variables)) {
      const [, source] = REFERENCE.exec(written) ?? [];
      const value = source === undefined ? written : env[source]?.trim();
      if (value === undefined || (source !== undefined && value === ''))
        return { keys: at('env', name), message: `the environment variable ${source ?? ''} is not set` };
      values[name] = value;
    }
    Object.defineProperty(pool.provisioning, 'env', { value: values, enumerable: false });
  }
  return undefined;
}

/** What is written, or what the environment variable holds that is named there. */
function resolved(written: string, env: Environment, keys: KeyPath): string | Mistake {
  const [, name] = REFERENCE.exec(written) ?? [];
  const value = name === undefined ? written : env[name]?.trim();
  if (value !== undefined && SECRET.test(value)) return value;
  const problem = value ? 'holds no key: there are blanks or other characters in it' : 'is not set';
  return { keys, message: `the environment variable ${name ?? ''} ${problem}` };
}

function readSecret(path: string): string | { code: string } {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (thrown) {
    return { code: String((thrown as NodeJS.ErrnoException).code) };
  }
}

function hide<K extends string>(owner: { [key in K]?: string }, key: K, value: string): void {
  Object.defineProperty(owner, key, { value, enumerable: false, configurable: true });
}
