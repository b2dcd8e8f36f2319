import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { findMistake } from './config/checks.ts';
import { readEnvironment, type Environment } from './config/environment.ts';
import { ConfigError, type KeyPath } from './config/error.ts';
import { withBooleans } from './config/booleans.ts';
import { readConfigFile } from './config/file.ts';
import { layerOf, locateIn, mergeLayers, type Layer, type Settings } from './config/layers.ts';
import { modelId, parseModel } from './config/model.ts';
import { takeSecrets } from './config/secrets.ts';
import { explain, pathText } from './contract/explain.ts';
import { configFields } from './contract/generated/fields.js';
import type { Config as MutableConfig, ConfigInput } from './contract/generated/types.ts';
import { validateConfig } from './contract/generated/validators.js';

export { ConfigError };
export { parseBindAddr } from './config/bind-addr.ts';
export type { ConfigInput };

type Frozen<T> = T extends object ? { readonly [K in keyof T]: Frozen<T[K]> } : T;

/** The configuration with every default filled in; frozen. */
export type Config = Frozen<MutableConfig>;

/** One pool of a {@link Config}; `engine` tells which kind. */
export type PoolConfig = Config['pools'][number];

export interface ConfigSources {
  /** YAML or JSON file; relative paths in it are relative to its folder. @default none */
  file?: string | undefined;
  /** Environment variables; they win over the file. @default none */
  env?: Environment | undefined;
  /** Settings from the caller, such as command-line flags; they win over everything. @default none */
  overrides?: ConfigInput | undefined;
}

/**
 * Reads, merges and checks the configuration. Without any source it is one pool with the bundled model.
 *
 * In the result `runtime.dir` and `models.cache_dir` are absolute, a llamacpp pool's `model` is `storyteller`, `file:`
 * and an absolute path, or the reference of what is fetched, and every pool's queue has its capacity and policy.
 * @throws ConfigError on the first mistake, in one line
 */
export function loadConfig(sources: ConfigSources = {}): Config {
  const read = sources.file === undefined ? undefined : readConfigFile(sources.file);
  const file: Layer | undefined = read && { ...read, settings: withBooleans(read.settings, configFields) };
  const layers: Layer[] = [
    ...(file ? [file] : []),
    readEnvironment(sources.env ?? {}, configFields),
    { settings: (sources.overrides ?? {}) as Settings, locate: () => 'options' },
  ];
  const written = mergeLayers(layers);
  const settings: unknown = structuredClone(written);
  const refuse = (keys: KeyPath, text: string) => new ConfigError(`${locateIn(layers, keys)}: ${text}`);
  if (!validateConfig(settings)) {
    const { keys, text } = explain(validateConfig.errors, settings, configFields);
    throw refuse(keys, text);
  }
  const mistake = findMistake(settings, written) ?? takeSecrets(settings, sources.env ?? {});
  if (mistake) throw refuse(mistake.keys, `${pathText(mistake.keys)}: ${mistake.message}`);
  const folderOf = (keys: KeyPath) =>
    sources.file !== undefined && layerOf(layers, keys) === file ? dirname(sources.file) : '.';
  return freeze(complete(settings, folderOf));
}

/** Fills in what depends on other settings or on where a setting was written. */
function complete(config: MutableConfig, folderOf: (keys: KeyPath) => string): MutableConfig {
  const { capacity, policy } = config.admission;
  config.runtime.dir = resolve(folderOf(['runtime', 'dir']), config.runtime.dir);
  const { models } = config;
  models.cache_dir = models.cache_dir.startsWith('~/')
    ? join(homedir(), models.cache_dir.slice(2))
    : resolve(folderOf(['models', 'cache_dir']), models.cache_dir);
  for (const pool of config.pools) {
    pool.queue = { capacity: pool.queue.capacity ?? capacity, full_policy: pool.queue.full_policy ?? policy };
    // A server that runs already knows its model by its own name; only what is loaded here is a file.
    const isFile = pool.engine === 'llamacpp' && pool.provisioning.mode === 'embedded';
    if (!isFile) continue;
    const { model } = pool.provisioning;
    if (model) model.ref = normalModelRef(model.ref, folderOf(['pools']));
    else pool.model = normalModelRef(pool.model, folderOf(['pools']));
  }
  return config;
}

function normalModelRef(text: string, folder: string): string {
  const name = parseModel(text);
  return name.kind === 'mistake' ? text : modelId(name, folder);
}

function freeze<T>(value: T): Frozen<T> {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) freeze(inner);
    Object.freeze(value);
  }
  return value as Frozen<T>;
}
