import type { Context } from 'koa';
import type { Catalog } from '../actors/catalog.ts';
import type { Orchestrator } from '../actors/orchestrator.ts';
import type { Purge } from '../actors/purge.ts';
import type { ArtifactStore } from '../artifacts/artifact-store.ts';
import type { Clock } from '../clock.ts';
import type { AuthOptions, Caller, Refusal } from './caller.ts';
import type { CorrelationState } from './correlation.ts';

export interface HttpOptions {
  orchestrator: Orchestrator;
  /** Stored ones and transcripts; what is put need not have been checked. */
  artifacts: Pick<ArtifactStore, 'put' | 'get' | 'list'>;
  /** Models that are known here; what is added need not have been checked. */
  catalog: Pick<Catalog, 'add' | 'get' | 'list' | 'remove' | 'verify' | 'setState'>;
  /** Deletes what was stored for pools. */
  purge: Pick<Purge, 'begin'>;
  clock: Clock;
  /** Largest request body in bytes. */
  body_limit_bytes: number;
  /** Comment lines on idle streams, in milliseconds; 0 sends none. */
  heartbeat_ms: number;
  /** Path before every route, such as `/llm`; empty where requests come without one. */
  prefix: string;
  /** Whether streams of unfinished tasks tell in words what happens, also to readers that do not ask for it. */
  narration_enabled: boolean;
  /** Where streams tell in words, least time between two sentences of where the task is, in milliseconds; 0: none. */
  narration_period_ms: number;
  /** How long tokens may wait for others to leave with, in milliseconds; undefined: each is an event. */
  microbatch_window_ms: number | undefined;
  /** The exposition format of everything measured. */
  metrics: () => Promise<string>;
  /** Who may call; undefined: whoever the host of this face lets through. */
  auth: AuthOptions | undefined;
  /** Hears of callers that are turned away. */
  refused: (ctx: Context, refusal: Refusal) => void;
  /** A frame was not sent to a slow reader, because a newer one has replaced it. */
  dropped: () => void;
  /** Hears of failures that are not the caller's. */
  report: (error: unknown, ctx: Context) => void;
}

/** Where links of an answer begin: a host may have cut a part of the path off before it called this face. */
export function mountPoint(ctx: Context): string {
  const { mountPath } = ctx as { mountPath?: string };
  const { baseUrl } = ctx.req as { baseUrl?: string };
  return (mountPath ?? baseUrl ?? '') + (ctx.state['prefix'] as string);
}

export interface ExchangeState extends CorrelationState {
  /** Who calls; not there where the host of this face decides that. */
  caller?: Caller;
  /** What a failure of this exchange is about, where it does not say so itself. */
  concerns?: { engine: string; pool_id?: string };
}

/** What a route is given: it parses, asks, answers, and keeps nothing. */
export type Handler = (ctx: Context & { state: ExchangeState }) => void | Promise<void>;
