import { parentPort, workerData } from 'node:worker_threads';
import { reasonOf, StoreError, type StoreErrorCode } from './store-error.ts';

/** What a database thread does. */
export interface Served<Batch, Answer> {
  /** One transaction. An error says that nothing of the batch has happened. */
  write(batch: Batch): Answer;
  close(): void;
}

/** What a database thread says. Errors as plain data: a copied one loses its class and its fields. */
export type Reply<Answer> = { answer: Answer } | { refused: string; code: StoreErrorCode };

/** Instead of a batch: write no more, close the file and end. */
export const LEAVE = 'leave';

/** Runs in the thread: opens what `data` says, tells so, and answers one batch after the other. */
export function serve<Data, Batch, Answer>(open: (data: Data) => Served<Batch, Answer>): void {
  const port = parentPort;
  if (!port) throw new Error('a database is served by a thread of its own');
  const reply = (work: () => Answer | undefined): boolean => {
    try {
      port.postMessage({ answer: work() });
      return true;
    } catch (error) {
      const code = error instanceof StoreError ? error.code : 'unusable';
      port.postMessage({ refused: reasonOf(error), code } satisfies Reply<Answer>);
      return false;
    }
  };
  let served: Served<Batch, Answer> | undefined;
  const isOpen = reply(() => {
    served = open(workerData as Data);
    return undefined;
  });
  if (!isOpen) return;
  port.on('message', (message: Batch | typeof LEAVE) => {
    if (message !== LEAVE) return void reply(() => served?.write(message));
    served?.close();
    port.close();
  });
}
