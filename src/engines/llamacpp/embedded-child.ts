/** Entry point of the child process that holds the model: the native code may abort the process it runs in. */
import { toFailure } from '../../errors.ts';
import type { EngineCall, EngineOutcome } from '../engine.ts';
import { failed, notLoaded } from '../outcome.ts';
import type { EmbeddedModel } from './embedded-model.ts';
import type { ChildMessage, DeltaEntry, EmbeddedModelOptions, ParentMessage } from './embedded-protocol.ts';

type Work = Extract<ParentMessage, { type: 'run' | 'embed' | 'rerank' }>;

const running = new Map<number, { abort: AbortController; ended: Promise<void> }>();
let loaded: EmbeddedModel | undefined;
let outbox: DeltaEntry[] = [];

process.on('message', (message: ParentMessage) => {
  switch (message.type) {
    case 'load':
      return void load(message.options);
    case 'run':
    case 'embed':
    case 'rerank':
      return start(message);
    case 'abort':
      return running.get(message.run)?.abort.abort();
    case 'count':
      return send({ type: 'answer', request: message.request, ...counted(message.input) });
    case 'ping':
      return send({ type: 'answer', request: message.request });
    case 'unload':
      return void unload();
  }
});

// Nothing is left to answer to, and native threads may be mid-decode: no teardown, just the end.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));

// Ctrl-C and a service manager signal the whole group; the parent drains first and then unloads.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);

async function load(options: EmbeddedModelOptions): Promise<void> {
  try {
    // Imported late, so that a missing native build is a message and not a crash.
    const { EmbeddedModel } = await import('./embedded-model.ts');
    loaded = await EmbeddedModel.load(options, (fraction) => send({ type: 'loading', fraction }));
    send({ type: 'loaded', properties: loaded.properties });
  } catch (error) {
    send({ type: 'load-failed', message: toFailure(error).message });
  }
}

function start(message: Work): void {
  const { run } = message;
  if (loaded === undefined) return send({ type: 'ended', run, outcome: failed(notLoaded()) });
  const abort = new AbortController();
  const ended = work(loaded, message, abort.signal).then((outcome) => {
    running.delete(run);
    flush();
    send({ type: 'ended', run, outcome });
  });
  running.set(run, { abort, ended });
}

function work(model: EmbeddedModel, message: Work, signal: AbortSignal): Promise<EngineOutcome> {
  const { run } = message;
  const started = (tokens_in: number, tokens_cached = 0): void =>
    send({ type: 'started', run, tokens_in, tokens_cached });
  switch (message.type) {
    case 'embed': {
      const vector = (i: number, found: number[]): void => send({ type: 'vector', run, i, vector: found });
      return model.embed(message.call, started, vector, signal);
    }
    case 'rerank': {
      const score = (index: number, found: number): void => send({ type: 'score', run, index, score: found });
      return model.rerank(message.call, started, score, signal);
    }
    case 'run': {
      const progress = (done: number, total: number): void => send({ type: 'progress', run, done, total });
      const delta = (text: string, tokens: number): void => {
        if (outbox.push([run, text, tokens]) === 1) setImmediate(flush);
      };
      return model.run(message.call, { started, progress, delta }, signal);
    }
  }
}

/** One message for what all slots produced in this turn of the event loop. */
function flush(): void {
  if (outbox.length === 0) return;
  send({ type: 'deltas', deltas: outbox });
  outbox = [];
}

function counted(input: EngineCall['input']): { tokens?: number } {
  try {
    return loaded === undefined ? {} : { tokens: loaded.count(input) };
  } catch {
    return {};
  }
}

async function unload(): Promise<void> {
  for (const run of running.values()) run.abort.abort();
  await Promise.all([...running.values()].map((run) => run.ended));
  await loaded?.dispose();
  process.removeAllListeners('disconnect');
  process.disconnect();
}

function send(message: ChildMessage): void {
  // The parent may be gone by now; the disconnect handler has the last word.
  process.send?.(message, undefined, {}, () => undefined);
}
