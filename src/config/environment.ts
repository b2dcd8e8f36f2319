import type { Field, Fields } from '../contract/generated/fields.js';
import { nearest } from '../contract/nearest.ts';
import { booleanOf } from './booleans.ts';
import { ConfigError } from './error.ts';
import type { Layer, Settings } from './layers.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

const PREFIX = 'TASKCHART_';

/**
 * Settings from variables such as `TASKCHART_SERVER__BIND_ADDR`. An empty variable counts as unset.
 * @throws ConfigError for a variable that looks like a setting and is none
 */
export function readEnvironment(env: Environment, fields: Fields): Layer {
  const paths = new Map(settable(fields).map((path) => [variableName(path), path]));
  const settings: Settings = {};
  const names = new Map<string, string>();
  for (const [name, text] of Object.entries(env)) {
    if (text === undefined || text === '' || !name.startsWith(PREFIX)) continue;
    const path = paths.get(name);
    if (path === undefined) {
      refuseLookalike(name, [...paths.keys()], fields);
      continue;
    }
    names.set(path, name);
    put(settings, path.split('.'), valueOf(text, fields[path]));
  }
  return { settings, locate: (keys) => names.get(keys.join('.')) ?? 'environment' };
}

/** Lists and what is inside them have no variable: they are set in the file. */
function settable(fields: Fields): string[] {
  return Object.keys(fields).filter((path) => {
    const type = fields[path]?.type;
    return path !== '' && !path.includes('[]') && type !== 'array' && type !== 'object';
  });
}

function variableName(path: string): string {
  return PREFIX + path.toUpperCase().replaceAll('.', '__');
}

/**
 * A cluster sets `TASKCHART_PORT_8080_TCP` and the like for a service called taskchart, so only what has the
 * double underscore of a setting, or would be one with it, is taken for a mistake.
 */
function refuseLookalike(name: string, known: readonly string[], fields: Fields): void {
  const flat = (text: string) => text.replaceAll('__', '_');
  const meant = known.find((candidate) => flat(candidate) === flat(name)) ?? nearest(name, known);
  const isSetting = name.slice(PREFIX.length).includes('__');
  if (!isSetting && (meant === undefined || flat(meant) !== flat(name))) return;
  const [section = ''] = name.slice(PREFIX.length).toLowerCase().split('__');
  if (fields[section]?.type === 'array') {
    throw new ConfigError(`${name}: ${section} is a list; set it in the configuration file`);
  }
  const hint = meant === undefined ? '' : `; did you mean ${meant}?`;
  throw new ConfigError(`${name}: there is no such setting${hint}`);
}

/** What does not look like the type stays text, so that the check of all settings names it. */
function valueOf(text: string, field: Field | undefined): unknown {
  if (field?.type === 'integer' || field?.type === 'number') {
    return /^[+-]?\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : text;
  }
  return field?.type === 'boolean' ? (booleanOf(text) ?? text) : text;
}

function put(settings: Settings, keys: readonly string[], value: unknown): void {
  const last = keys.at(-1) ?? '';
  let at = settings;
  for (const key of keys.slice(0, -1)) at = (at[key] ??= {}) as Settings;
  at[last] = value;
}
