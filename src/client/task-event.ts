import type {
  EmbeddingEvent,
  EndEvent,
  MetricsEvent,
  NarrationEvent,
  RerankEvent,
  StartedEvent,
  Token,
} from '../contract/generated/types.ts';
import type { Failure } from '../errors.ts';
import { badAnswer } from './client-error.ts';
import type { EventFrame } from './event-stream.ts';

/** What an event carries, by its type. Fields that this version does not know are kept. */
export interface TaskEventData {
  /** Exactly once, first. */
  started: StartedEvent;
  /** One piece of output; batches arrive as single tokens. */
  token: Token;
  embedding: EmbeddingEvent;
  rerank: RerankEvent;
  metrics: MetricsEvent;
  narration: NarrationEvent;
  /** The output is complete, or the task was cancelled. Nothing follows. */
  end: EndEvent;
  /** The task failed. Nothing follows. */
  error: Failure;
}

/** One event of a task's stream. `id` is where a later stream can go on (`after`); some events have none. */
export type TaskEvent = {
  [Type in keyof TaskEventData]: { id?: number; type: Type; data: TaskEventData[Type] };
}[keyof TaskEventData];

const TYPES: ReadonlySet<string> = new Set<keyof TaskEventData>([
  'started',
  'token',
  'embedding',
  'rerank',
  'metrics',
  'narration',
  'end',
  'error',
]);

/** Events that were sent as one frame. */
export interface FrameEvents {
  /** Id of the first and of the last one; undefined for a frame that is no resume point. */
  ids: [first: number, last: number] | undefined;
  /** Empty for a type that this version does not know. */
  events: TaskEvent[];
}

/** @throws ClientError bad_answer for an id or data that are not taskchart's */
export function eventsOf({ id, event, data }: EventFrame): FrameEvents {
  const last = id === undefined ? undefined : idOf(id);
  if (!TYPES.has(event)) return { ids: last === undefined ? undefined : [last, last], events: [] };
  const value = objectOf(event, data);
  if (event !== 'token' || !Array.isArray(value['batch']))
    return {
      ids: last === undefined ? undefined : [last, last],
      events: [
        { ...(last === undefined ? {} : { id: last }), type: event, data: value } as unknown as TaskEvent,
      ],
    };
  const tokens = value['batch'] as Token[];
  // The frame has the id of its last token, and every token counts.
  const first = last === undefined ? undefined : last - tokens.length + 1;
  return {
    ids: first === undefined || last === undefined ? undefined : [first, last],
    events: tokens.map((token, i) => ({
      ...(first === undefined ? {} : { id: first + i }),
      type: 'token',
      data: token,
    })),
  };
}

export function isTerminal({ type }: TaskEvent): boolean {
  return type === 'end' || type === 'error';
}

function idOf(id: string): number {
  if (!/^\d{1,15}$/.test(id))
    throw badAnswer(`stream: an event's id must be a whole number, got "${id.slice(0, 40)}"`);
  return Number(id);
}

function objectOf(event: string, data: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(data);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // The same mistake as JSON that is no object; what arrived may be output and is not shown.
  }
  throw badAnswer(`stream: the data of "${event}" must be a JSON object`);
}
