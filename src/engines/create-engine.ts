import type { Clock } from '../clock.ts';
import type { ContainerOptions } from './container.ts';
import type { Engine, EngineHost } from './engine.ts';
import type { EmbeddedModelOptions } from './llamacpp/embedded-protocol.ts';
import type { ExternalLlamaOptions } from './llamacpp/external.ts';
import type { ManagedLlamaOptions } from './llamacpp/managed.ts';
import type { RemoteOptions } from './remote-engine.ts';
import type { SyntheticOptions } from './synthetic.ts';

/** An engine as plain settings. */
export type EngineSpec =
  | ({ family: 'synthetic' } & Omit<SyntheticOptions, 'clock' | 'host'>)
  | ({ family: 'llamacpp'; mode: 'embedded' } & EmbeddedModelOptions)
  | ({ family: 'llamacpp'; mode: 'external' } & Omit<ExternalLlamaOptions, 'clock' | 'host'>)
  | ({ family: 'llamacpp' } & Omit<ManagedLlamaOptions, 'clock' | 'host'>)
  | ({ mode: 'container' } & Omit<ContainerOptions, 'clock' | 'host'>)
  | ({ mode?: 'external'; family: 'vllm' | 'tgi' | 'triton' | 'openai' } & Omit<
      RemoteOptions,
      'clock' | 'host'
    >);

/** From settings to an adapter that is not loaded yet. Adapters are imported when one of their kind is asked for. */
export async function createEngine(spec: EngineSpec, host: EngineHost, clock: Clock): Promise<Engine> {
  if ('mode' in spec && spec.mode === 'container') {
    const { createContainerEngine } = await import('./container.ts');
    return createContainerEngine({ ...spec, host, clock });
  }
  switch (spec.family) {
    case 'synthetic': {
      const { createSyntheticEngine } = await import('./synthetic.ts');
      return createSyntheticEngine({ ...spec, host, clock });
    }
    case 'vllm': {
      const { createVllmEngine } = await import('./vllm/vllm.ts');
      return createVllmEngine({ ...spec, host, clock });
    }
    case 'tgi': {
      const { createTgiEngine } = await import('./tgi/tgi.ts');
      return createTgiEngine({ ...spec, host, clock });
    }
    case 'triton': {
      const { createTritonEngine } = await import('./triton/triton.ts');
      return createTritonEngine({ ...spec, host, clock });
    }
    case 'openai': {
      const { createOpenAiEngine } = await import('./openai/openai.ts');
      return createOpenAiEngine({ ...spec, host, clock });
    }
    case 'llamacpp':
      return createLlamaEngine(spec, host, clock);
  }
}

async function createLlamaEngine(
  spec: Exclude<Extract<EngineSpec, { family: 'llamacpp' }>, { mode: 'container' }>,
  host: EngineHost,
  clock: Clock,
): Promise<Engine> {
  if (spec.mode === 'embedded') {
    const { createEmbeddedLlamaEngine } = await import('./llamacpp/embedded.ts');
    const { family: _family, mode: _mode, ...options } = spec;
    return createEmbeddedLlamaEngine({ ...options, host });
  }
  if (spec.mode !== 'external') {
    const { createManagedLlamaEngine } = await import('./llamacpp/managed.ts');
    return createManagedLlamaEngine({ ...spec, host, clock });
  }
  const { createExternalLlamaEngine } = await import('./llamacpp/external.ts');
  return createExternalLlamaEngine({ ...spec, host, clock });
}
