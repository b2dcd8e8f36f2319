import type { Orchestrator } from '../actors/orchestrator.ts';
import type { TaskRecord } from '../actors/task-record.ts';
import type { Clock } from '../clock.ts';
import type { NarrationEvent } from '../contract/generated/types.ts';
import type { LogBatch, LogEvent } from '../streams/task-log.ts';
import type { Notes } from './interleave.ts';

type Sentence = Omit<NarrationEvent, 'ts'>;

/**
 * The same stream with what happens in words. `narration` frames have no id: they are made when somebody listens, and
 * nobody can resume from one.
 * @param timesOf when events were written, in epoch milliseconds
 * @param encode the wire form of the events
 */
export async function* inWords(
  batches: AsyncIterable<LogBatch>,
  timesOf: () => Promise<(event_id: number) => number>,
  encode: (events: readonly LogEvent[]) => string,
): AsyncGenerator<LogBatch, void, undefined> {
  for await (const { events, frames, isLast } of batches) {
    const told = events.some((event) => event.type !== 'token');
    yield { events, frames: told ? narrated(events, await timesOf(), encode) : frames, isLast };
  }
}

function narrated(
  events: readonly LogEvent[],
  timeOf: (event_id: number) => number,
  encode: (events: readonly LogEvent[]) => string,
): string {
  let frames = '';
  // Tokens stay together: how they leave is not for this function to say.
  let tokens: LogEvent[] = [];
  for (const event of events) {
    if (event.type === 'token') {
      tokens.push(event);
      continue;
    }
    frames += encode(tokens);
    tokens = [];
    const sentence = sentenceOf(event);
    const narration = sentence ? frameOf(sentence, timeOf(event.id)) : '';
    const isTerminal = event.type === 'end' || event.type === 'error';
    const frame = encode([event]);
    // Nothing follows a terminal event, `started` comes before everything.
    frames += isTerminal ? narration + frame : frame + narration;
  }
  return frames + encode(tokens);
}

export interface ProgressOptions {
  orchestrator: Orchestrator;
  record: TaskRecord;
  clock: Clock;
  /** Least time between two sentences, in milliseconds. */
  period_ms: number;
  /** Hears of each that was not sent, because a newer one has replaced it. */
  dropped: () => void;
}

/** Where a task is while nothing else tells of it, now and then, and only where it is somewhere else than before. */
export function progressOf({ orchestrator, record, clock, period_ms, dropped }: ProgressOptions): Notes {
  let told = '';
  let next: string | undefined;
  return {
    watch(wake) {
      let timer: unknown;
      const beat = (): void => {
        timer = clock.setTimeout(beat, period_ms);
        const human = whereIs(orchestrator, record);
        if (human === undefined || human === told) return;
        if (next !== undefined) dropped();
        told = human;
        next = frameOf(say('progress', human), clock.wall());
        wake();
      };
      timer = clock.setTimeout(beat, period_ms);
      return () => clock.clearTimeout(timer);
    },
    take() {
      const frame = next;
      next = undefined;
      return frame;
    },
  };
}

function whereIs(orchestrator: Orchestrator, record: TaskRecord): string | undefined {
  switch (record.state) {
    case 'admitted':
      return `The task waits with ${countAhead(orchestrator.place(record).queue_position)} ahead of it.`;
    case 'provisioning':
      return 'The task waits for its model and engine.';
    case 'placed':
      return 'The engine reads the input of the task.';
    case 'streaming':
      return `The task has ${countOf(orchestrator.tasks.tokensOf(record), 'token')} so far.`;
    default:
      return undefined;
  }
}

function frameOf(sentence: Sentence, ts: number): string {
  return `event: narration\ndata: ${JSON.stringify({ ...sentence, ts })}\n\n`;
}

/** Sentences have at most 100 characters; the name of a pool may have 64, and is in the event beside it. */
const LONGEST_NAME = 30;

function sentenceOf(event: LogEvent): Sentence | undefined {
  switch (event.type) {
    case 'started': {
      const { queue_position, pool_id } = event.data;
      const queue = pool_id && pool_id.length <= LONGEST_NAME ? `the queue of pool ${pool_id}` : 'its queue';
      return say('admit', `The task joins ${queue} with ${countAhead(queue_position)} ahead of it.`);
    }
    case 'metrics':
      if (event.data.resumed) return say('resume', 'Another run goes on where the task’s engine was lost.');
      return undefined;
    case 'end': {
      const { tokens_out, canceled } = event.data;
      return canceled
        ? say('cancel', `The task is canceled after ${countOf(tokens_out, 'token')}.`)
        : say('end', `The task ends after ${countOf(tokens_out, 'token')}.`);
    }
    case 'error':
      return say('fail', `The task fails with ${event.data.code}.`);
    default:
      return undefined;
  }
}

function countAhead(queue_position: number): string {
  return queue_position === 0 ? 'nothing' : countOf(queue_position, 'task');
}

function countOf(count: number, noun: string): string {
  return count === 1 ? `1 ${noun}` : `${count} ${noun}s`;
}

function say(action: string, human: string): Sentence {
  return { actor: 'orchestrator', action, target: 'task', human };
}
