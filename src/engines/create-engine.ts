import type { Clock } from '../clock.ts';
import type { Engine, EngineHost } from './engine.ts';
import type { EmbeddedModelOptions } from './llamacpp/embedded-protocol.ts';
import type { ExternalLlamaOptions } from './llamacpp/external.ts';
import type { SyntheticOptions } from './synthetic.ts';

/** An engine as plain settings. */
export type EngineSpec =
  | ({ family: 'synthetic' } & Omit<SyntheticOptions, 'clock' | 'host'>)
  | ({ family: 'llamacpp'; mode: 'embedded' } & EmbeddedModelOptions)
  | ({ family: 'llamacpp'; mode: 'external' } & Omit<ExternalLlamaOptions, 'clock' | 'host'>);

/** From settings to an adapter that is not loaded yet. Adapters are imported when one of their kind is asked for. */
export async function createEngine(spec: EngineSpec, host: EngineHost, clock: Clock): Promise<Engine> {
  if (spec.family === 'synthetic') {
    const { createSyntheticEngine } = await import('./synthetic.ts');
    return createSyntheticEngine({ ...spec, host, clock });
  }
  if (spec.mode === 'embedded') {
    const { createEmbeddedLlamaEngine } = await import('./llamacpp/embedded.ts');
    const { family: _family, mode: _mode, ...options } = spec;
    return createEmbeddedLlamaEngine({ ...options, host });
  }
  const { createExternalLlamaEngine } = await import('./llamacpp/external.ts');
  return createExternalLlamaEngine({ ...spec, host, clock });
}
