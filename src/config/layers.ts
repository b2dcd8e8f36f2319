import type { KeyPath } from './error.ts';

/** Settings as they are written, before they are checked. */
export type Settings = Record<string, unknown>;

/** Settings from one place, and how to name that place in a message. */
export interface Layer {
  settings: Settings;
  locate(keys: KeyPath): string;
}

export function isMap(value: unknown): value is Settings {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Later layers win, key by key; a list replaces the whole list. */
export function mergeLayers(layers: readonly Layer[]): Settings {
  return layers.reduce<Settings>((merged, layer) => merge(merged, layer.settings), {});
}

/** The layer that a setting came from, if one of them has it. */
export function layerOf(layers: readonly Layer[], keys: KeyPath): Layer | undefined {
  return layers.findLast(({ settings }) => has(settings, keys));
}

/** Names the place that a setting came from, or else the place that has the most of the way to it. */
export function locateIn(layers: readonly Layer[], keys: KeyPath): string {
  for (let length = keys.length; length > 0; length--) {
    const layer = layerOf(layers, keys.slice(0, length));
    if (layer !== undefined) return layer.locate(keys);
  }
  return layers[0]?.locate(keys) ?? 'configuration';
}

function merge(below: Settings, above: Settings): Settings {
  const merged: Settings = { ...below };
  for (const [key, value] of Object.entries(above)) {
    if (value === undefined) continue;
    const under = below[key];
    merged[key] = isMap(value) ? merge(isMap(under) ? under : {}, value) : structuredClone(value);
  }
  return merged;
}

function has(settings: unknown, keys: KeyPath): boolean {
  let at = settings;
  for (const key of keys) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) return false;
    at = (at as Settings)[key];
  }
  return true;
}
