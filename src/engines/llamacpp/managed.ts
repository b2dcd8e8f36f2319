import { stat } from 'node:fs/promises';
import type { Engine } from '../engine.ts';
import { ManagedEngine, type ManagedPlace } from '../managed-engine.ts';
import { deviceMemory, hostMemory } from '../process/process-memory.ts';
import { createExternalLlamaEngine } from './external.ts';
import { checkModelFile } from './model-file.ts';
import { serverArguments } from './server-flags.ts';
import { loadError } from '../outcome.ts';

export interface ManagedLlamaOptions extends Omit<ManagedPlace, 'handoff'> {
  /** The llama-server: a path, or a name that is found on the PATH of `env`. */
  program: string;
  /** How it came here. */
  mode: 'binary' | 'source' | 'package';
  model_path: string;
  model_id: string;
  model_digest?: string;
  /** Tokens per slot. @default what the model was made for */
  ctx?: number;
  slots: number;
  threads: number;
  /** Ordinals of the GPUs it may use. @default whatever it finds */
  devices?: readonly number[];
  /** More arguments, in any spelling that llama-server knows. */
  flags?: readonly string[];
  /** The whole environment of the process. */
  env: Readonly<Record<string, string>>;
  /** As for a running server. @default only with several slots, so that one slot always says the same */
  reuse_prefix?: boolean;
}

/** A llama-server of ours: a process that is started on load, watched, and ended on unload. */
export function createManagedLlamaEngine(
  options: ManagedLlamaOptions,
): Engine & { readonly pid: number | undefined } {
  const { program, mode, model_id, model_path, model_digest, slots, devices = [], flags = [], env } = options;
  const reuse_prefix = options.reuse_prefix ?? slots > 1;
  const args = (port: number): string[] =>
    serverArguments({
      model_path,
      host: '127.0.0.1',
      port,
      slots,
      ctx: options.ctx,
      threads: options.threads,
      flags,
    });
  const mask = devices.join(',');
  return new LlamaServer(
    model_path,
    {
      family: 'llamacpp',
      command: (port) => ({
        program,
        args: args(port),
        env: mask === '' ? env : { ...env, CUDA_VISIBLE_DEVICES: mask },
      }),
      attach: (url, host) =>
        createExternalLlamaEngine({ url, model_id, reuse_prefix, clock: options.clock, host }),
      // A pool with devices shares their memory, another one that of the host.
      measure: devices.length === 0 ? (pid) => residentModel(pid, model_path) : deviceMemory,
      refine: (properties) => ({
        ...properties,
        ...(model_digest === undefined ? {} : { model_digest }),
        features: { ...properties.features, deterministic: slots === 1 && !reuse_prefix },
      }),
    },
    {
      ...options,
      handoff: {
        provisioning_mode: mode,
        model: { id: model_id, path: model_path },
        flags: args(0).filter((word, index, all) => word !== '--port' && all[index - 1] !== '--port'),
        ...(mask === '' ? {} : { device_mask: mask }),
      },
    },
  );
}

/** Looks at the model before a process is started for it, which could only curse at a wrong file. */
class LlamaServer extends ManagedEngine {
  readonly #model_path: string;

  constructor(model_path: string, ...rest: ConstructorParameters<typeof ManagedEngine>) {
    super(...rest);
    this.#model_path = model_path;
  }

  override async load(signal: AbortSignal): ReturnType<ManagedEngine['load']> {
    try {
      await checkModelFile(this.#model_path);
    } catch (error) {
      throw loadError((error as Error).message);
    }
    return super.load(signal);
  }
}

/** A program that only starts another one takes next to nothing itself, and says nothing about the model. */
async function residentModel(pid: number, model_path: string): Promise<number | undefined> {
  const [bytes, { size }] = await Promise.all([hostMemory(pid), stat(model_path)]);
  return bytes !== undefined && bytes >= size ? bytes : undefined;
}
