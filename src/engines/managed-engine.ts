import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { failure, TaskchartError } from '../errors.ts';
import type {
  EmbedCall,
  Engine,
  EngineCall,
  EngineFamily,
  EngineHealth,
  EngineHost,
  EngineInput,
  EngineLoss,
  EngineOutcome,
  EngineProperties,
  EngineSink,
  RerankCall,
} from './engine.ts';
import { type Handoff, handoffFile, removeHandoff, writeHandoff } from './handoff.ts';
import { declined, failed, loadError, notLoaded } from './outcome.ts';
import { type Port, takePort } from './process/free-port.ts';
import { endStale, removePidFile, writePidFile } from './process/pid-file.ts';
import { type ServerCommand, ServerProcess } from './process/server-process.ts';

/** How often a start is tried on another port because somebody took the first one in between. */
const PORT_TRIES = 3;
const PORT_TAKEN =
  /could(n't| not) bind|failed to bind|address already in use|port is already allocated|EADDRINUSE/i;

/** How long runs of a server that is gone may take to notice, in milliseconds. */
const NOTICE_MS = 2000;

/** A server of ours: how to start it, and how to speak to it once it runs. */
export interface ManagedServer {
  family: Exclude<EngineFamily, 'synthetic'>;
  /** From a port to what listens there, on loopback. */
  command: (port: number) => ServerCommand;
  /** An adapter of a server that runs already. */
  attach: (url: string, host: EngineHost) => Engine;
  /** Clears away what a process of the same name may have left, before the start and after the end. */
  sweep?: () => Promise<void>;
  /** What the adapter cannot know of a server and its owner does. */
  refine?: (properties: EngineProperties) => EngineProperties;
  /** What its process takes once the model is loaded, in bytes, where that can be known. */
  measure?: (pid: number) => Promise<number | undefined>;
}

/** Where it runs, and what is told of it. */
export interface ManagedPlace {
  /** Folder of the PID file and the handoff file. */
  folder: string;
  pool_id: string;
  replica_id: string;
  /** Ports to try first, in this order. */
  ports: readonly number[];
  /** Ports that are somebody else's. */
  avoid_ports: readonly number[];
  handoff: Pick<Handoff, 'provisioning_mode' | 'model' | 'flags' | 'device_mask'>;
  clock: Clock;
  host: EngineHost;
}

type Phase =
  | { name: 'unloaded' }
  | { name: 'loading'; done: Promise<EngineProperties>; stop: AbortController }
  | { name: 'ready'; up: Up; properties: EngineProperties }
  | { name: 'stopping'; done: Promise<void> };

/** A server that runs, with its adapter. */
interface Up {
  process: ServerProcess;
  inner: Engine;
  port: Port;
}

/**
 * An engine whose server is a process of ours: started on load, watched, and never left behind. What it says and does
 * while it runs goes through the adapter of a server that runs already.
 */
export class ManagedEngine implements Engine {
  readonly family: EngineFamily;
  readonly #server: ManagedServer;
  readonly #place: ManagedPlace;
  readonly #runs = new Set<Promise<EngineOutcome>>();
  #phase: Phase = { name: 'unloaded' };

  constructor(server: ManagedServer, place: ManagedPlace) {
    this.family = server.family;
    this.#server = server;
    this.#place = place;
  }

  /** The server's process id while there is one: for operators and for tests that kill it. */
  get pid(): number | undefined {
    return this.#phase.name === 'ready' ? this.#phase.up.process.pid : undefined;
  }

  async load(signal: AbortSignal): Promise<EngineProperties> {
    while (this.#phase.name === 'stopping') await this.#phase.done;
    if (this.#phase.name === 'ready') return this.#phase.properties;
    if (this.#phase.name === 'loading') return this.#phase.done;
    const stop = new AbortController();
    const done = this.#start(AbortSignal.any([signal, stop.signal])).then(
      ({ up, properties }) => {
        this.#phase = { name: 'ready', up, properties };
        void up.process.gone.then((loss) => this.#lose(up, loss));
        return properties;
      },
      (error: unknown) => {
        this.#phase = { name: 'unloaded' };
        throw error;
      },
    );
    this.#phase = { name: 'loading', done, stop };
    return done;
  }

  async health(signal: AbortSignal): Promise<EngineHealth> {
    if (this.#phase.name === 'loading') return { live: true, ready: false };
    if (this.#phase.name === 'ready') return this.#phase.up.inner.health(signal);
    return { live: false, ready: false, message: 'The engine is not loaded.' };
  }

  async probe(signal: AbortSignal): Promise<boolean> {
    return this.#phase.name === 'ready' && ((await this.#phase.up.inner.probe?.(signal)) ?? true);
  }

  run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<EngineOutcome> {
    return this.#track((inner) => inner.run(call, sink, signal));
  }

  embed(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#track((inner) => inner.embed?.(call, vector, signal) ?? cannot('embed'));
  }

  rerank(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#track((inner) => inner.rerank?.(call, score, signal) ?? cannot('rank'));
  }

  async count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    return this.#phase.name === 'ready' ? this.#phase.up.inner.count(input, signal) : undefined;
  }

  async unload(): Promise<void> {
    const phase = this.#phase;
    if (phase.name === 'unloaded') return;
    if (phase.name === 'stopping') return phase.done;
    if (phase.name === 'loading') {
      phase.stop.abort();
      await phase.done.catch(() => undefined);
      // It may have been ready before it heard.
      return this.unload();
    }
    await this.#stopWith(() => this.#takeDown(phase.up));
  }

  #track(work: (inner: Engine) => Promise<EngineOutcome>): Promise<EngineOutcome> {
    if (this.#phase.name !== 'ready') return Promise.resolve(declined(notLoaded()));
    const run = work(this.#phase.up.inner);
    this.#runs.add(run);
    void run.finally(() => this.#runs.delete(run));
    return run;
  }

  async #start(signal: AbortSignal): Promise<{ up: Up; properties: EngineProperties }> {
    const { clock, host, ports, avoid_ports } = this.#place;
    const avoid = new Set(avoid_ports);
    throwIfAborted(signal);
    await endStale(this.#pidFile);
    await this.#clear();
    for (let tries = 1; ; tries++) {
      throwIfAborted(signal);
      const port = await takePort(ports, avoid);
      const process = new ServerProcess(
        this.#server.command(port.number),
        host.output && ((chunk) => host.output?.(chunk)),
      );
      const up = { process, port, inner: this.#attach(port, process) };
      try {
        return { up, properties: await this.#waitFor(up, signal) };
      } catch (error) {
        const { message } = error as Error;
        await up.inner.unload();
        await process.stop(clock);
        await this.#clear();
        port.release();
        if (signal.aborted) throw loadError('Loading was aborted.');
        if (tries === PORT_TRIES || !(PORT_TAKEN.test(message) || process.lines.some(isPortTaken)))
          throw error instanceof TaskchartError ? error : loadError(message);
        avoid.add(port.number);
      }
    }
  }

  async #waitFor({ process, inner, port }: Up, signal: AbortSignal): Promise<EngineProperties> {
    const pid = await process.started;
    // Before the wait: who dies during it leaves a note of what it has started.
    await writePidFile(this.#pidFile, pid, this.#server.command(port.number).args);
    const died = process.gone.then((loss) => {
      throw loadError(loss.message);
    });
    const loaded = await Promise.race([inner.load(signal), died]);
    const memory_bytes = await this.#server.measure?.(pid);
    const properties = {
      ...(this.#server.refine?.(loaded) ?? loaded),
      ...(memory_bytes === undefined ? {} : { memory_bytes }),
    };
    const { handoff, pool_id, replica_id } = this.#place;
    await writeHandoff(this.#handoffFile, {
      engine: this.#server.family,
      engine_version: properties.engine_version,
      ...handoff,
      url: urlOf(port),
      pool_id,
      replica_id,
      slots_total: properties.slots_total,
      slots_free: properties.slots_total,
    });
    throwIfAborted(signal);
    return properties;
  }

  #attach(port: Port, process: ServerProcess): Engine {
    const { host, clock } = this.#place;
    return this.#server.attach(urlOf(port), {
      ...(host.loading ? { loading: (fraction) => host.loading?.(fraction) } : {}),
      ...(host.waiting ? { waiting: (why) => host.waiting?.(why) } : {}),
      // It does not listen any more. Mostly its process is about to end, and then the process tells why.
      lost: (loss) => {
        if (this.#phase.name !== 'ready' || this.#phase.up.process !== process) return;
        const { up } = this.#phase;
        const late = Promise.withResolvers<EngineLoss>();
        const timer = clock.setTimeout(() => late.resolve(loss), NOTICE_MS);
        void Promise.race([process.gone, late.promise]).then((why) => {
          clock.clearTimeout(timer);
          return this.#lose(up, why);
        });
      },
    });
  }

  /** Once for each server: whoever hears of its end first. */
  async #lose(up: Up, loss: EngineLoss): Promise<void> {
    if (this.#phase.name !== 'ready' || this.#phase.up !== up) return;
    const { clock, host } = this.#place;
    await this.#stopWith(async () => {
      await this.#server.sweep?.();
      // Every run sees its connection break by itself, which tells it from one that was aborted.
      const patience = Promise.withResolvers<void>();
      const timer = clock.setTimeout(patience.resolve, NOTICE_MS);
      await Promise.race([Promise.allSettled(this.#runs), patience.promise]);
      clock.clearTimeout(timer);
      await this.#takeDown(up);
    });
    host.lost(loss);
  }

  async #takeDown({ inner, process, port }: Up): Promise<void> {
    await inner.unload();
    await process.stop(this.#place.clock);
    await this.#clear();
    port.release();
  }

  async #stopWith(work: () => Promise<void>): Promise<void> {
    const done = work().finally(() => {
      this.#phase = { name: 'unloaded' };
    });
    this.#phase = { name: 'stopping', done };
    await done;
  }

  /** Nothing of a server that is not there stays to be found. */
  async #clear(): Promise<void> {
    await this.#server.sweep?.();
    const removals = [removePidFile(this.#pidFile), removeHandoff(this.#handoffFile)];
    for (const removal of await Promise.allSettled(removals))
      if (removal.status === 'rejected')
        process.emitWarning(`what tells of an engine cannot be removed: ${String(removal.reason)}`);
  }

  get #pidFile(): string {
    const { folder, replica_id } = this.#place;
    return join(folder, `${replica_id.replaceAll('/', '-')}.pid`);
  }

  get #handoffFile(): string {
    return handoffFile(this.#place.folder, this.#place.replica_id);
  }
}

function urlOf(port: Port): string {
  return `http://127.0.0.1:${port.number}`;
}

function isPortTaken(line: string): boolean {
  return PORT_TAKEN.test(line);
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw loadError('Loading was aborted.');
}

function cannot(what: string): Promise<EngineOutcome> {
  return Promise.resolve(failed(failure('INVALID_PARAMS', `workload: this engine cannot ${what}`)));
}
