import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { EngineFamily } from './engine.ts';

/** What is told of an engine that is up, to whoever watches the folder of such files. */
export interface Handoff {
  engine: Exclude<EngineFamily, 'synthetic'>;
  engine_version: string;
  /** Where it came from: `binary`, `source`, `container` or `external`. */
  provisioning_mode: string;
  /** Where it answers. */
  url: string;
  pool_id: string;
  replica_id: string;
  model: { id: string; path: string };
  /** The arguments it was started with, in their normal form. */
  flags: string[];
  /** Ordinals of the devices it may use, with commas between them; all of this machine where it is left out. */
  device_mask?: string;
  slots_total?: number;
  slots_free?: number;
}

const ENGINES: readonly string[] = ['llamacpp', 'vllm', 'tgi', 'triton', 'openai'];
/** A file without them speaks of the one pool and its one replica. */
const DEFAULT_POOL = 'default';
const DEFAULT_REPLICA = 'r0';

/** `<folder>/<replica>.json`, its slashes as dashes. */
export function handoffFile(folder: string, replica_id: string): string {
  return join(folder, `${replica_id.replaceAll('/', '-')}.json`);
}

/** Whole or not at all: a reader sees the old file or the new one. The engine has passed its health check. */
export async function writeHandoff(file: string, handoff: Handoff): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  // Whoever watches the folder for engines of others leaves those of its own process alone.
  const text = JSON.stringify({ ...handoff, owner_pid: process.pid }, undefined, 2);
  await writeFile(temporary, `${text}\n`);
  await rename(temporary, file);
}

/** The engine is not there any more. Safe to repeat. */
export async function removeHandoff(file: string): Promise<void> {
  await rm(file, { force: true });
}

/** Reads what {@link writeHandoff} or another program wrote. @throws Error naming the field and what would be right */
export function parseHandoff(text: string): Handoff {
  const said = objectIn(text);
  const url = textOf(said, 'url');
  if (!/^https?:$/.test(URL.parse(url)?.protocol ?? '')) throw mistake('url', 'an http or https URL', url);
  const engine = textOf(said, 'engine');
  if (!ENGINES.includes(engine)) throw mistake('engine', `one of ${ENGINES.join(', ')}`, engine);
  const { model, flags = [] } = said;
  if (typeof model !== 'object' || model === null)
    throw mistake('model', 'an object with id and path', model);
  if (!Array.isArray(flags) || !flags.every((flag) => typeof flag === 'string'))
    throw mistake('flags', 'a list of strings', flags);
  const device_mask = said['device_mask'] === undefined ? undefined : textOf(said, 'device_mask');
  const slots_total = countOf(said, 'slots_total');
  const slots_free = countOf(said, 'slots_free');
  return {
    engine: engine as Handoff['engine'],
    engine_version: textOf(said, 'engine_version', 'unknown'),
    provisioning_mode: textOf(said, 'provisioning_mode', 'external'),
    url,
    pool_id: textOf(said, 'pool_id', DEFAULT_POOL),
    replica_id: textOf(said, 'replica_id', DEFAULT_REPLICA),
    model: {
      id: textOf(model as Fields, 'id', undefined, 'model.'),
      path: textOf(model as Fields, 'path', '', 'model.'),
    },
    flags: flags as string[],
    ...(device_mask === undefined ? {} : { device_mask }),
    ...(slots_total === undefined ? {} : { slots_total }),
    ...(slots_free === undefined ? {} : { slots_free }),
  };
}

type Fields = Record<string, unknown>;

function objectIn(text: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('must be JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error('must be a JSON object');
  return value as Fields;
}

function textOf(fields: Fields, name: string, fallback?: string, prefix = ''): string {
  const value = fields[name] ?? fallback;
  if (typeof value !== 'string' || (value === '' && fallback !== ''))
    throw mistake(prefix + name, 'a string', value);
  return value;
}

function countOf(fields: Fields, name: string): number | undefined {
  const value = fields[name] ?? undefined;
  if (value === undefined) return undefined;
  if (!Number.isInteger(value) || Number(value) < 0) throw mistake(name, 'an integer ≥ 0', value);
  return value as number;
}

function mistake(field: string, expected: string, got: unknown): Error {
  const shown = got === undefined ? 'nothing' : JSON.stringify(got);
  return new Error(`${field}: must be ${expected}, got ${shown}`);
}
