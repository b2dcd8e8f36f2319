import type { Context } from 'koa';
import type { Orchestrator } from '../actors/orchestrator.ts';
import type { Clock } from '../clock.ts';
import type { CorrelationState } from './correlation.ts';

export interface HttpOptions {
  orchestrator: Orchestrator;
  clock: Clock;
  /** Largest request body in bytes. */
  body_limit_bytes: number;
  /** Comment lines on idle streams, in milliseconds; 0 sends none. */
  heartbeat_ms: number;
  /** The exposition format of everything measured. */
  metrics: () => Promise<string>;
  /** Hears of failures that are not the caller's. */
  report: (error: unknown, ctx: Context) => void;
}

/** What a route is given: it parses, asks, answers, and keeps nothing. */
export type Handler = (ctx: Context & { state: CorrelationState }) => void | Promise<void>;
