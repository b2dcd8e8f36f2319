import { execFile } from 'node:child_process';
import type { Engine, EngineHost } from './engine.ts';
import { type ContainerSettings, containerCommand, removeCommand, servedName } from './container-command.ts';
import { createExternalLlamaEngine } from './llamacpp/external.ts';
import { ManagedEngine, type ManagedPlace } from './managed-engine.ts';
import { createTgiEngine } from './tgi/tgi.ts';
import { createTritonEngine } from './triton/triton.ts';
import { createVllmEngine } from './vllm/vllm.ts';

export interface ContainerOptions extends ContainerSettings, Omit<ManagedPlace, 'handoff'> {
  /** Name under which tasks know the model. */
  model_id: string;
  model_digest?: string;
}

/** How long podman or docker may take to remove a container, in milliseconds. */
const REMOVE_MS = 20_000;

/** An engine in a container of ours: started on load, watched, and removed on unload. */
export function createContainerEngine(
  options: ContainerOptions,
): Engine & { readonly pid: number | undefined } {
  const { family, env, model_id, model_path, model_digest, devices } = options;
  const command = (port: number) => containerCommand(options, port);
  return new ManagedEngine(
    {
      family,
      command,
      attach: (url, host) => attach(options, url, host),
      // Its client may be gone and the container not: it is the container that has to go.
      sweep: () => remove(removeCommand(options), env),
      refine: (properties) => ({ ...properties, ...(model_digest === undefined ? {} : { model_digest }) }),
    },
    {
      ...options,
      handoff: {
        provisioning_mode: 'container',
        model: { id: model_id, path: model_path },
        flags: [...options.flags],
        ...(devices.length === 0 ? {} : { device_mask: devices.join(',') }),
      },
    },
  );
}

function attach(options: ContainerOptions, url: string, host: EngineHost): Engine {
  const { family, model_id, slots, ctx, clock } = options;
  if (family === 'llamacpp')
    return createExternalLlamaEngine({ url, model_id, reuse_prefix: slots > 1, clock, host });
  const create = { vllm: createVllmEngine, tgi: createTgiEngine, triton: createTritonEngine }[family];
  const model = servedName(options);
  return create({ url, model_id, model, slots, ...(ctx === undefined ? {} : { ctx }), clock, host });
}

/** Whether there was one is nothing to complain about. */
function remove(
  [tool = '', ...args]: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<void> {
  return new Promise((resolve) => {
    execFile(tool, args, { env, timeout: REMOVE_MS }, () => resolve());
  });
}
