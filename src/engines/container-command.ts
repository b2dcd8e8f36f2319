import { basename, dirname } from 'node:path';
import { serverArguments } from './llamacpp/server-flags.ts';
import type { ServerCommand } from './process/server-process.ts';

/** What a container is run for. */
export interface ContainerSettings {
  family: 'llamacpp' | 'vllm' | 'tgi' | 'triton';
  /** Path of podman or docker. */
  tool: string;
  kind: 'podman' | 'docker';
  image: string;
  /** Name of the container; one of that name is taken for what an earlier process has left. */
  name: string;
  model_path: string;
  /** Name under which the server is asked for the model, where it has one. */
  model: string;
  slots: number;
  /** Tokens of one call. @default what the model was made for */
  ctx?: number;
  threads: number;
  devices: readonly number[];
  flags: readonly string[];
  /** Variables inside the container. */
  variables: Readonly<Record<string, string>>;
  /** The environment of podman or docker itself. */
  env: Readonly<Record<string, string>>;
}

/** Where each server listens inside its container. */
const INNER_PORT = { llamacpp: 8080, vllm: 8000, tgi: 8080, triton: 8000 } as const;
/** A GGUF in several files: the first names the others. */
const IN_PARTS = /-\d{5}-of-\d{5}\.gguf$/i;

/**
 * From a port of this machine's loopback to the command that listens there. The image has to be here already, the
 * model is only read, and the values of variables stand in the environment, where others do not see them.
 */
export function containerCommand(settings: ContainerSettings, port: number): ServerCommand {
  const { tool, kind, image, name, devices, variables, env, family } = settings;
  const { mount, args } = inside(settings);
  return {
    program: tool,
    args: [
      'run',
      '--rm',
      '--name',
      name,
      '--pull=never',
      '--security-opt=no-new-privileges',
      '--publish',
      `127.0.0.1:${port}:${INNER_PORT[family]}`,
      '--volume',
      `${mount.from}:${mount.to}:ro`,
      // The workers of these servers share tensors in memory, and 64 MB are not enough for any.
      ...(family === 'llamacpp' ? [] : ['--shm-size=2g']),
      ...gpus(kind, devices),
      ...Object.keys(variables)
        .toSorted()
        .flatMap((variable) => ['--env', variable]),
      image,
      ...args,
    ],
    env: { ...env, ...variables },
  };
}

/** Ends a container and removes what is left of it; there may be none. */
export function removeCommand({ tool, name }: Pick<ContainerSettings, 'tool' | 'name'>): string[] {
  return [tool, 'rm', '--force', name];
}

/** The model's name on the server. */
export function servedName({ family, model, model_path }: ContainerSettings): string {
  return family === 'triton' ? basename(model_path) : model;
}

function gpus(kind: 'podman' | 'docker', devices: readonly number[]): string[] {
  if (devices.length === 0) return [];
  return kind === 'podman'
    ? devices.flatMap((ordinal) => ['--device', `nvidia.com/gpu=${ordinal}`])
    : // The quotes are docker's: it would take a comma for the end of the value.
      ['--gpus', `"device=${devices.join(',')}"`];
}

function inside(settings: ContainerSettings): { mount: { from: string; to: string }; args: string[] } {
  const { family, model_path, model, slots, ctx, threads, devices, flags } = settings;
  const port = INNER_PORT[family];
  const several = devices.length > 1 ? String(devices.length) : undefined;
  switch (family) {
    case 'llamacpp': {
      const inParts = IN_PARTS.test(model_path);
      const to = `/model/${basename(model_path)}`;
      return {
        mount: inParts ? { from: dirname(model_path), to: '/model' } : { from: model_path, to },
        args: serverArguments({ model_path: to, host: '0.0.0.0', port, slots, ctx, threads, flags }),
      };
    }
    case 'vllm':
      return {
        mount: { from: model_path, to: '/model' },
        args: [
          '--model',
          '/model',
          '--served-model-name',
          model,
          '--host',
          '0.0.0.0',
          '--port',
          String(port),
          '--max-num-seqs',
          String(slots),
          ...(ctx === undefined ? [] : ['--max-model-len', String(ctx)]),
          ...(several === undefined ? [] : ['--tensor-parallel-size', several]),
          ...flags,
        ],
      };
    case 'tgi':
      return {
        mount: { from: model_path, to: '/model' },
        args: [
          '--model-id',
          '/model',
          '--hostname',
          '0.0.0.0',
          '--port',
          String(port),
          ...(ctx === undefined
            ? []
            : ['--max-input-tokens', String(Math.max(1, ctx - 1)), '--max-total-tokens', String(ctx)]),
          ...(several === undefined ? [] : ['--num-shard', several]),
          ...flags,
        ],
      };
    case 'triton':
      return {
        mount: { from: model_path, to: `/models/${basename(model_path)}` },
        args: ['tritonserver', '--model-repository=/models', `--http-port=${port}`, ...flags],
      };
  }
}
