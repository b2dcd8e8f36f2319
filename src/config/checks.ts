import { showValue } from '../contract/explain.ts';
import type { Config } from '../contract/generated/types.ts';
import { parseBindAddr } from './bind-addr.ts';
import type { KeyPath } from './error.ts';
import type { Settings } from './layers.ts';
import { checkProvisioning } from './provisioning.ts';

/** A mistake that no schema can see. */
export interface Mistake {
  keys: KeyPath;
  /** What would be right, to go after the path. */
  message: string;
}

/** @param written the settings before defaults were filled in */
export function findMistake(config: Config, written: Settings): Mistake | undefined {
  return (
    checkBindAddr(config.server.bind_addr) ??
    checkBackoff(config.supervision) ??
    config.pools
      .map(
        (pool, index) =>
          checkPool(config, index) ??
          (pool.engine === 'synthetic' ? undefined : checkProvisioning(pool, index, written)),
      )
      .find((mistake) => mistake !== undefined)
  );
}

function checkBindAddr(text: string): Mistake | undefined {
  const keys = ['server', 'bind_addr'];
  const address = parseBindAddr(text);
  if (address === undefined) {
    const message = `must be host:port such as 127.0.0.1:8080 or [::1]:8080, got ${showValue(text)}`;
    return { keys, message };
  }
  if (address.loopback) return undefined;
  // Anybody who can reach the port could use it: this version has no token to ask for.
  const message = `must be a loopback address (127.0.0.0/8, ::1 or localhost), because this version has no authentication; got ${showValue(text)}`;
  return { keys, message };
}

function checkBackoff({ initial_ms, max_ms }: Config['supervision']): Mistake | undefined {
  if (max_ms >= initial_ms) return undefined;
  const message = `must be at least supervision.initial_ms (${initial_ms}), got ${max_ms}`;
  return { keys: ['supervision', 'max_ms'], message };
}

function checkPool(config: Config, index: number): Mistake | undefined {
  const id = config.pools[index]?.id;
  const first = config.pools.findIndex((pool) => pool.id === id);
  if (first === index) return undefined;
  return {
    keys: ['pools', index, 'id'],
    message: `must be unique; ${showValue(id)} is already the id of pools[${first}]`,
  };
}
