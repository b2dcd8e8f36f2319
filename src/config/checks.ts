import { X509Certificate } from 'node:crypto';
import { showValue } from '../contract/explain.ts';
import type { Config } from '../contract/generated/types.ts';
import { parseBindAddr } from './bind-addr.ts';
import type { KeyPath } from './error.ts';
import type { Settings } from './layers.ts';
import { checkProvisioning } from './provisioning.ts';
import { sharesOf } from './shares.ts';

/** A mistake that no schema can see. */
export interface Mistake {
  keys: KeyPath;
  /** What would be right, to go after the path. */
  message: string;
}

/** @param written the settings before defaults were filled in */
export function findMistake(config: Config, written: Settings): Mistake | undefined {
  return (
    checkBindAddr(config) ??
    checkBackoff(config.supervision) ??
    checkMemory(config) ??
    checkRoots(config.catalog.trust_policy) ??
    config.pools
      .map(
        (pool, index) =>
          checkPool(config, index) ??
          (pool.engine === 'synthetic' ? undefined : checkProvisioning(pool, index, written)),
      )
      .find((mistake) => mistake !== undefined)
  );
}

function checkBindAddr({ server: { bind_addr: text }, auth }: Config): Mistake | undefined {
  const keys = ['server', 'bind_addr'];
  const address = parseBindAddr(text);
  if (address === undefined) {
    const message = `must be host:port such as 127.0.0.1:8080 or [::1]:8080, got ${showValue(text)}`;
    return { keys, message };
  }
  if (address.loopback || auth.token !== undefined || auth.token_file !== undefined) return undefined;
  // Anybody who can reach the port could use it.
  const message = `must be a loopback address (127.0.0.0/8, ::1 or localhost) as long as there is no token; set auth.token (TASKCHART_AUTH__TOKEN) to listen on ${showValue(text)}`;
  return { keys, message };
}

function checkBackoff({ initial_ms, max_ms }: Config['supervision']): Mistake | undefined {
  if (max_ms >= initial_ms) return undefined;
  const message = `must be at least supervision.initial_ms (${initial_ms}), got ${max_ms}`;
  return { keys: ['supervision', 'max_ms'], message };
}

function checkRoots({ ca_roots }: Config['catalog']['trust_policy']): Mistake | undefined {
  const index = ca_roots.findIndex((pem) => {
    try {
      return new X509Certificate(pem).subject === '';
    } catch {
      return true;
    }
  });
  if (index < 0) return undefined;
  return { keys: ['catalog', 'trust_policy', 'ca_roots', index], message: 'must be a certificate in PEM' };
}

/** What can never be loaded together, or at all, is told now and not to the first task. */
function checkMemory({ memory, pools }: Config): Mistake | undefined {
  const ordinals = memory.devices.map(({ id }) => id);
  const twice = ordinals.findIndex((id, index) => ordinals.indexOf(id) !== index);
  if (twice >= 0)
    return {
      keys: ['memory', 'devices', twice, 'id'],
      message: `must be unique, got ${ordinals[twice]} twice`,
    };
  const pinned = new Map<string, number>();
  for (const [index, pool] of pools.entries()) {
    if (!('memory_bytes' in pool) || pool.memory_bytes === undefined) continue;
    const places = pool.devices.length === 0 ? ['host'] : pool.devices.map(String);
    const shares = sharesOf(pool);
    for (const [turn, place] of places.entries()) {
      const budget =
        place === 'host' ? memory.host_bytes : memory.devices.find(({ id }) => String(id) === place)?.bytes;
      const taken = pinned.get(place) ?? 0;
      const of_one = Math.ceil((pool.memory_bytes * (shares[turn] ?? 0)) / Math.max(...shares));
      const need = of_one * pool.replicas;
      if (budget !== undefined && need + taken > budget) {
        const beside = taken > 0 ? ` beside the ${taken} of pools that are pinned` : '';
        const message = `must leave its ${pool.replicas} engines within the ${budget} bytes of ${place === 'host' ? 'memory.host_bytes' : `device ${place}`}${beside}, got ${of_one} each`;
        return { keys: ['pools', index, 'memory_bytes'], message };
      }
      if (pool.pinned) pinned.set(place, taken + need);
    }
  }
  return undefined;
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
