import type { Clock } from '../clock.ts';
import { type Failure, failure, toFailure } from '../errors.ts';
import type {
  EmbedCall,
  Engine,
  EngineCall,
  EngineFamily,
  EngineHealth,
  EngineHost,
  EngineInput,
  EngineOutcome,
  EngineProperties,
  EngineSink,
  RerankCall,
} from './engine.ts';
import type { RunResult } from './event-stream.ts';
import { Upstream, connectionFailure, isRefused } from './llamacpp/upstream.ts';
import { aborted, declined, failed, givenUp, loadError, notLoaded, unsupported } from './outcome.ts';
import { constraintRefusal } from './output-constraint.ts';
import { isHopeless, withholding } from './remote-failure.ts';
import { textsOf } from './token-bound.ts';

/** Pause before a server that is not ready is asked again, the first time and at most, in milliseconds. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;

/** How long a server may take to show that it is still there once a connection broke, in milliseconds. */
const PROBE_MS = 5000;

/** A server that somebody else runs. */
export interface RemoteOptions {
  /** Where it answers. */
  url: string;
  /** Name under which tasks know the model. */
  model_id: string;
  /** The model's name on the server. @default model_id */
  model?: string;
  /** Sent as a bearer token, to this server alone; never part of a message. */
  api_key?: string;
  /** Calls that it is given at the same time. @default 8 */
  slots?: number;
  /** Tokens of one call, input and output together. @default what the server tells */
  ctx?: number;
  clock: Clock;
  host: EngineHost;
}

/** What a server was found to be, and how to use it. */
export interface RemoteSession {
  readonly properties: EngineProperties;
  /** Whether a conversation can go on in the middle of an answer. */
  readonly resumes_chat: boolean;
  /** May throw a TaskchartError before it asks for anything. */
  run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<RunResult>;
  embed?(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<RunResult>;
  rerank?(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<RunResult>;
  count(input: EngineInput, signal: AbortSignal): Promise<number | undefined>;
}

/** What one kind of server speaks. */
export interface RemoteProtocol {
  readonly family: EngineFamily;
  /** What such a server is called in messages. */
  readonly name: string;
  readonly health: {
    path: string;
    /** Statuses beside 200 with which it can be used. */
    ready?: readonly number[];
    /** Statuses of one that will be ready later. */
    starting: readonly number[];
  };
  /** Asks a server that is ready what it is. @throws TaskchartError */
  attach(upstream: Upstream, signal: AbortSignal): Promise<RemoteSession>;
}

type Phase =
  | { name: 'unloaded' }
  | { name: 'loading'; upstream: Upstream; done: Promise<EngineProperties>; stop: AbortController }
  | Ready;

interface Ready {
  name: 'ready';
  upstream: Upstream;
  session: RemoteSession;
  runs: AbortController;
  /** Whether the server is still there is being found out. */
  check?: Promise<void> | undefined;
}

/** An engine behind HTTP that somebody else runs: finding it, losing it, and what holds of every kind of it. */
export class RemoteEngine implements Engine {
  readonly family: EngineFamily;
  readonly #options: RemoteOptions;
  readonly #protocol: RemoteProtocol;
  #phase: Phase = { name: 'unloaded' };

  constructor(options: RemoteOptions, protocol: RemoteProtocol) {
    this.family = protocol.family;
    this.#options = options;
    this.#protocol = protocol;
  }

  async load(signal: AbortSignal): Promise<EngineProperties> {
    if (this.#phase.name === 'ready') return this.#phase.session.properties;
    if (this.#phase.name === 'loading') return this.#phase.done;
    const upstream = this.#connect();
    const stop = new AbortController();
    const done = this.#attach(upstream, AbortSignal.any([signal, stop.signal])).then(
      (session) => {
        this.#phase = { name: 'ready', upstream, session, runs: new AbortController() };
        return session.properties;
      },
      (error: unknown) => {
        this.#phase = { name: 'unloaded' };
        // Not waited for: a connection that does not come about would hold it up until it is given up.
        void upstream.agent.destroy();
        const { code, message } = withholding(toFailure(error), this.#options.api_key);
        // The caller of a load has asked for nothing: whatever a server refuses there is the server's state.
        throw loadError(message, code === 'INTERNAL' ? code : 'POOL_UNAVAILABLE');
      },
    );
    this.#phase = { name: 'loading', upstream, done, stop };
    return done;
  }

  async health(signal: AbortSignal): Promise<EngineHealth> {
    if (this.#phase.name === 'unloaded')
      return { live: false, ready: false, message: 'The engine is not loaded.' };
    const { path, ready = [] } = this.#protocol.health;
    const answer = await this.#phase.upstream.get(path, signal);
    if (answer.kind === 'answer')
      return { live: true, ready: answer.status === 200 || ready.includes(answer.status) };
    return { live: false, ready: false, message: connectionFailure(answer.error, false).message };
  }

  run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<EngineOutcome> {
    const texts = [...textsOf(call.input), call.resume?.text ?? ''];
    return this.#work('completion', texts, signal, (session, either) => {
      const refused = refusalOfCall(call, session);
      return refused ? Promise.resolve(settled(refused)) : session.run(call, sink, either);
    });
  }

  embed(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#work('embedding', call.inputs, signal, async (session, either) => {
      return (await session.embed?.(call, vector, either)) ?? settled(notOffered('embedding'));
    });
  }

  rerank(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#work('rerank', [call.query, ...call.documents], signal, async (session, either) => {
      return (await session.rerank?.(call, score, either)) ?? settled(notOffered('rerank'));
    });
  }

  async count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    if (this.#phase.name !== 'ready') return undefined;
    try {
      return await this.#phase.session.count(input, signal);
    } catch {
      return undefined;
    }
  }

  async unload(): Promise<void> {
    const phase = this.#phase;
    if (phase.name === 'unloaded') return;
    if (phase.name === 'loading') {
      phase.stop.abort();
      return void (await phase.done.catch(() => undefined));
    }
    this.#phase = { name: 'unloaded' };
    phase.runs.abort();
    await phase.upstream.agent.destroy();
  }

  /** @param texts what the caller wrote, which no message may repeat */
  async #work(
    workload: 'completion' | 'embedding' | 'rerank',
    texts: readonly string[],
    signal: AbortSignal,
    work: (session: RemoteSession, signal: AbortSignal) => Promise<RunResult>,
  ): Promise<EngineOutcome> {
    const phase = await this.#ready();
    if (!phase) return declined(notLoaded());
    if (signal.aborted) return aborted();
    const { session, runs } = phase;
    if (!session.properties.workloads.includes(workload)) return failed(notOffered(workload));
    const either = AbortSignal.any([signal, runs.signal]);
    try {
      const { outcome, broken } = await work(session, either);
      if (broken) await this.#check(phase);
      return this.#withheld(outcome, texts);
    } catch (error) {
      if (either.aborted) return aborted();
      await this.#check(phase);
      return this.#withheld(givenUp(error), texts);
    }
  }

  #withheld(outcome: EngineOutcome, texts: readonly string[]): EngineOutcome {
    if (outcome.kind !== 'failed') return outcome;
    return { ...outcome, failure: withholding(outcome.failure, this.#options.api_key, texts) };
  }

  /** Undefined where it is not loaded; nobody begins while it is open whether the server is still there. */
  async #ready(): Promise<Ready | undefined> {
    const phase = this.#phase;
    if (phase.name !== 'ready') return undefined;
    if (phase.check) await phase.check;
    return this.#phase === phase ? phase : undefined;
  }

  #connect(): Upstream {
    try {
      return new Upstream(this.#options.url, this.#options.api_key);
    } catch {
      throw loadError('The engine URL cannot be read.', 'INVALID_PARAMS');
    }
  }

  async #attach(upstream: Upstream, signal: AbortSignal): Promise<RemoteSession> {
    const { host, clock } = this.#options;
    const { name, health } = this.#protocol;
    for (let pause_ms = FIRST_PAUSE_MS; ; pause_ms = Math.min(pause_ms * 2, LONGEST_PAUSE_MS)) {
      if (signal.aborted) throw loadError('Loading was aborted.');
      const answer = await upstream.get(health.path, signal);
      if (signal.aborted) throw loadError('Loading was aborted.');
      if (answer.kind === 'answer') {
        if (answer.status === 200 || health.ready?.includes(answer.status)) break;
        if (answer.status === 401 || answer.status === 403)
          throw loadError('The engine refused our credentials.', 'INTERNAL');
        if (!health.starting.includes(answer.status))
          throw loadError(`No ${name} there: GET ${health.path} answered ${answer.status}.`);
        host.waiting?.(`The engine is not ready (HTTP ${answer.status}).`);
      } else {
        const { message } = connectionFailure(answer.error, false);
        if (isHopeless(answer.error)) throw loadError(message);
        host.waiting?.(message);
      }
      await pause(clock, pause_ms, signal);
    }
    try {
      return await this.#protocol.attach(upstream, signal);
    } catch (error) {
      throw signal.aborted ? loadError('Loading was aborted.') : error;
    }
  }

  /**
   * After a broken connection: a server that is still there has lost a stream, one that is not is lost. A run that
   * broke ends only after that, so that its slot is not given to the next one before the loss is known.
   */
  #check(phase: Ready): Promise<void> {
    return (phase.check ??= this.#probe(phase).finally(() => {
      phase.check = undefined;
    }));
  }

  async #probe(phase: Ready): Promise<void> {
    const { upstream } = phase;
    const answer = await upstream.get(this.#protocol.health.path, AbortSignal.timeout(PROBE_MS));
    if (answer.kind === 'answer' || !isRefused(answer.error)) return;
    if (this.#phase !== phase) return;
    // Streams that have not noticed yet break here, and wait for this as well.
    await upstream.agent.destroy();
    if (this.#phase !== phase) return;
    this.#phase = { name: 'unloaded' };
    this.#options.host.lost({
      cause: 'unreachable',
      message: connectionFailure(answer.error, false).message,
    });
  }
}

/** Why a call cannot be run as it is meant; an engine that would ignore a part of it is not asked. */
function refusalOfCall(call: EngineCall, { properties, resumes_chat }: RemoteSession): Failure | undefined {
  const { input, output, resume } = call;
  const { features } = properties;
  if (input.kind === 'chat' && features.chat === 'none')
    return unsupported('messages', 'the model has no chat template');
  if (output !== undefined && resume !== undefined)
    return unsupported(output.kind, 'a constrained run cannot resume');
  if (output !== undefined && !features[output.kind])
    return unsupported(output.kind, 'the engine cannot hold its output to it');
  if (resume !== undefined && input.kind === 'chat' && !resumes_chat)
    return failure('WORKER_RESET', 'The run was lost, and this engine cannot go on in the middle of a chat.');
  return output && constraintRefusal(output);
}

function settled(cause: Failure): RunResult {
  return { outcome: failed(cause), broken: false };
}

function notOffered(workload: string): Failure {
  return unsupported(workload, 'the server does not offer it for this model');
}

function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clock.clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = clock.setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
