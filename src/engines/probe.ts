import type { Engine } from './engine.ts';

const LEASE_OF_NOBODY = 0;

/** The probe of an adapter whose calls tell the truth: the shortest call that its engine can be given. */
export async function decodesOneToken(
  engine: Pick<Engine, 'run' | 'embed' | 'rerank'>,
  workloads: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  const call = { task_id: 'probe', lease: LEASE_OF_NOBODY };
  const ignore = (): void => undefined;
  const answer = workloads.includes('completion')
    ? engine.run(
        { ...call, input: { kind: 'prompt', text: 'a' }, max_tokens: 1, seed: 0 },
        { delta: ignore },
        signal,
      )
    : workloads.includes('embedding')
      ? engine.embed?.({ ...call, inputs: ['a'] }, ignore, signal)
      : engine.rerank?.({ ...call, query: 'a', documents: ['a'] }, ignore, signal);
  return (await answer)?.kind === 'finished';
}
