import type { EngineInput } from '../engines/engine.ts';
import type { ThreadPool } from '../threads/thread-pool.ts';
import type { PoolModel } from './pool-model.ts';
import type { Replica } from './replica.ts';

/**
 * Counts tokens in a thread from the model file where there is one, which needs no engine and bothers none; a rendered
 * conversation, or a model without a file, only the engine can count.
 */
export class TokenCounter {
  readonly #model: PoolModel;
  readonly #threads: ThreadPool;

  constructor(model: PoolModel, threads: ThreadPool) {
    this.#model = model;
    this.#threads = threads;
  }

  /** @returns undefined where nobody can tell now */
  async count(
    input: EngineInput,
    replica: Replica | undefined,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    if (input.kind !== 'prompt') return replica?.count(input, signal);
    // A pool that is not prepared yet may have its file all the same.
    const path = await this.#model.locate();
    if (path === undefined || path === '') return replica?.count(input, signal);
    const counted = await this.#threads.countTokens({ model_path: path, text: input.text, signal });
    return counted ?? replica?.count(input, signal);
  }
}
