import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { findMistake } from './config/checks.ts';
import { readEnvironment, type Environment } from './config/environment.ts';
import { ConfigError, type KeyPath } from './config/error.ts';
import { withBooleans } from './config/booleans.ts';
import { readConfigFile } from './config/file.ts';
import { layerOf, locateIn, mergeLayers, type Layer, type Settings } from './config/layers.ts';
import { modelId, parseModel } from './config/model.ts';
import { isElsewhere } from './config/provisioning.ts';
import { takeSecrets } from './config/secrets.ts';
import { explain, pathText } from './contract/explain.ts';
import { configFields } from './contract/generated/fields.js';
import type { Config as MutableConfig, ConfigInput, LlamacppPool } from './contract/generated/types.ts';
import { validateConfig } from './contract/generated/validators.js';

export { ConfigError };
export { parseBindAddr } from './config/bind-addr.ts';
export { isElsewhere };
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
 * In the result `runtime.dir`, `handoff.dir`, `models.cache_dir` and `catalog.root` are absolute, a llamacpp pool's
 * `model` is `storyteller`, `file:` and an absolute path, the reference of what is fetched, or a name in the catalog, and
 * every pool's queue has its capacity and policy. `auth.token` and other secrets can be read by their names, and are left
 * out wherever the configuration is printed.
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
  const folderOf = (keys: KeyPath) =>
    sources.file !== undefined && layerOf(layers, keys) === file ? dirname(sources.file) : '.';
  const mistake =
    findMistake(settings, written) ??
    takeSecrets(settings, sources.env ?? {}, folderOf(['auth', 'token_file']));
  if (mistake) throw refuse(mistake.keys, `${pathText(mistake.keys)}: ${mistake.message}`);
  return freeze(complete(settings, folderOf));
}

/** Fills in what depends on other settings or on where a setting was written. */
function complete(config: MutableConfig, folderOf: (keys: KeyPath) => string): MutableConfig {
  const { capacity, policy } = config.admission;
  config.runtime.dir = resolve(folderOf(['runtime', 'dir']), config.runtime.dir);
  const { models, catalog, engines, handoff, runtime } = config;
  models.cache_dir = pathBeside(models.cache_dir, folderOf(['models', 'cache_dir']));
  engines.cache_dir = pathBeside(engines.cache_dir, folderOf(['engines', 'cache_dir']));
  catalog.root =
    catalog.root === undefined ? models.cache_dir : pathBeside(catalog.root, folderOf(['catalog', 'root']));
  // The generator cannot say that this default depends on another key; until here it may be missing.
  handoff.dir =
    (handoff.dir as string | undefined) === undefined
      ? join(runtime.dir, 'engines')
      : resolve(folderOf(['handoff', 'dir']), handoff.dir);
  for (const pool of config.pools) {
    pool.queue = { capacity: pool.queue.capacity ?? capacity, full_policy: pool.queue.full_policy ?? policy };
    // A server that runs already knows its model by its own name; only what is loaded here is a file.
    if (pool.engine === 'synthetic' || isElsewhere(pool.provisioning.mode)) continue;
    const beside = folderOf(['pools']);
    const { model } = pool.provisioning;
    if (model) model.ref = loadableName(model.ref, beside);
    else pool.model = loadableName(pool.model, beside);
    if (pool.engine === 'llamacpp') completeLlamacpp(pool.provisioning, engines, beside);
  }
  return config;
}

/** A name without scheme is that of a file where there is one. */
function loadableName(text: string, folder: string): string {
  const name = parseModel(text);
  if (name.kind === 'mistake') return text;
  const isFile = name.kind === 'catalog' && existsSync(resolve(folder, text));
  return modelId(isFile ? { kind: 'file', path: text } : name, folder);
}

function completeLlamacpp(
  provisioning: LlamacppPool['provisioning'],
  engines: MutableConfig['engines'],
  beside: string,
): void {
  const { binary, source } = provisioning;
  if (binary?.path !== undefined) binary.path = pathBeside(binary.path, beside);
  if (binary?.url !== undefined)
    binary.install_dir =
      binary.install_dir === undefined ? engines.cache_dir : pathBeside(binary.install_dir, beside);
  if (provisioning.mode !== 'source') return;
  const build = { cmake_flags: [], ...source?.build };
  const cache_dir = build.cache_dir === undefined ? engines.cache_dir : pathBeside(build.cache_dir, beside);
  provisioning.source = { submodules: false, ...source, build: { ...build, cache_dir } };
}

/** A path as it is written: below the home folder, or relative to where it was written. */
function pathBeside(path: string, beside: string): string {
  return path.startsWith('~/') ? join(homedir(), path.slice(2)) : resolve(beside, path);
}

function freeze<T>(value: T): Frozen<T> {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) freeze(inner);
    Object.freeze(value);
  }
  return value as Frozen<T>;
}
