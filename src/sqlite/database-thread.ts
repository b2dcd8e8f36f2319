import { Worker } from 'node:worker_threads';
import { LEAVE, type Reply } from './serve.ts';
import { StoreError } from './store-error.ts';

/**
 * The thread that writes one database file, so that no wait for the disk holds up the event loop. One batch at a time.
 * It keeps the process alive only while it has something to answer. A thread that died is replaced by the next batch.
 */
export class DatabaseThread<Batch, Answer> {
  readonly #program: URL;
  readonly #data: object;
  #worker: Worker | undefined;
  #asked: PromiseWithResolvers<unknown> | undefined;

  private constructor(program: URL, data: object) {
    this.#program = program;
    this.#data = data;
  }

  /** @throws StoreError where the file cannot be used */
  static async open<Batch, Answer>(program: URL, data: object): Promise<DatabaseThread<Batch, Answer>> {
    const thread = new DatabaseThread<Batch, Answer>(program, data);
    await thread.#start();
    return thread;
  }

  /** Rejects where nothing was written, or nobody knows; not to be called before the last one is answered. */
  async write(batch: Batch): Promise<Answer> {
    if (!this.#worker) await this.#start();
    const worker = this.#worker as Worker;
    worker.ref();
    worker.postMessage(batch, []);
    return (await this.#answer()) as Answer;
  }

  /** Closes the file and ends the thread. */
  async close(): Promise<void> {
    const worker = this.#worker;
    if (!worker) return;
    worker.ref();
    this.#worker = undefined;
    await new Promise((resolve) => {
      worker.once('exit', resolve);
      worker.postMessage(LEAVE, []);
    });
  }

  async #start(): Promise<void> {
    const worker = new Worker(this.#program, { workerData: this.#data });
    worker.on('message', (reply: Reply<Answer>) => {
      worker.unref();
      if ('answer' in reply) this.#asked?.resolve(reply.answer);
      else this.#asked?.reject(new StoreError(reply.code, reply.refused));
    });
    const gone = (error: unknown): void => {
      if (this.#worker === worker) this.#worker = undefined;
      this.#asked?.reject(new StoreError('unusable', 'the database thread has died', { cause: error }));
    };
    worker.on('error', gone);
    worker.on('exit', gone);
    try {
      await this.#answer();
      this.#worker = worker;
    } catch (error) {
      await worker.terminate();
      throw error;
    }
  }

  async #answer(): Promise<unknown> {
    this.#asked = Promise.withResolvers();
    try {
      return await this.#asked.promise;
    } finally {
      this.#asked = undefined;
    }
  }
}
