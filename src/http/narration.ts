import type { Clock } from '../clock.ts';
import type { NarrationEvent } from '../contract/generated/types.ts';
import { encodeEvents } from '../streams/frames.ts';
import type { LogBatch, LogEvent } from '../streams/task-log.ts';

type Sentence = Omit<NarrationEvent, 'ts'>;

/**
 * The same stream with what happens in words. `narration` frames have no id: they are made when somebody listens, and
 * nobody can resume from one.
 * @param verbose whether `metrics` also say what is being prepared
 */
export async function* inWords(
  batches: AsyncIterable<LogBatch>,
  verbose: boolean,
  clock: Clock,
): AsyncGenerator<LogBatch, void, undefined> {
  for await (const { events, frames, isLast } of batches) {
    const told = events.some((event) => event.type !== 'token');
    yield { events, frames: told ? narrated(events, verbose, clock.wall()) : frames, isLast };
  }
}

function narrated(events: readonly LogEvent[], verbose: boolean, ts: number): string {
  let frames = '';
  for (const event of events) {
    const sentence = sentenceOf(event);
    const narration = sentence ? `event: narration\ndata: ${JSON.stringify({ ...sentence, ts })}\n\n` : '';
    const isTerminal = event.type === 'end' || event.type === 'error';
    const frame = encodeEvents([verbose ? withPreparation(event) : event]);
    // Nothing follows a terminal event, `started` comes before everything.
    frames += isTerminal ? narration + frame : frame + narration;
  }
  return frames;
}

function sentenceOf(event: LogEvent): Sentence | undefined {
  switch (event.type) {
    case 'started': {
      const { queue_position, pool_id } = event.data;
      const ahead = queue_position === 0 ? 'nothing' : `${queue_position} tasks`;
      return say(
        'admit',
        `The task joins the queue${pool_id ? ` of pool ${pool_id}` : ''} with ${ahead} ahead of it.`,
      );
    }
    case 'metrics':
      if (event.data.resumed) return say('resume', 'Another run goes on where the task’s engine was lost.');
      if (event.data['state'] === 'provisioning')
        return say('prepare', 'The task waits for its model and engine.');
      return undefined;
    case 'end': {
      const { tokens_out, canceled } = event.data;
      return canceled
        ? say('cancel', `The task is canceled after ${tokens_out} tokens.`)
        : say('end', `The task ends after ${tokens_out} tokens.`);
    }
    case 'error':
      return say('fail', `The task fails with ${event.data.code}.`);
    default:
      return undefined;
  }
}

function say(action: string, human: string): Sentence {
  return { actor: 'orchestrator', action, target: 'task', human };
}

/** Which step is done and which is not, from the phase that the pool was in. */
function withPreparation(event: LogEvent): LogEvent {
  if (event.type !== 'metrics' || event.data['state'] !== 'provisioning') return event;
  const isLoading = event.data.phase === 'starting';
  return {
    ...event,
    data: {
      ...event.data,
      human: isLoading ? 'The engine loads the model.' : 'The model is fetched and checked.',
      prep: {
        model: { status: isLoading ? 'completed' : 'running' },
        engine: { status: isLoading ? 'running' : 'pending' },
      },
    },
  };
}
