import { isTerminal, type LogBatch, type LogEvent } from './task-log.ts';

/** The wire form of events (server-sent events): `id` is the resume point, and each is its own frame. */
export function encodeEvents(events: readonly LogEvent[]): string {
  let frames = '';
  for (const { id, type, data } of events)
    frames += `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
  return frames;
}

/** A batch of events that are at hand; encoded for the first reader that wants them so. */
export class EventBatch implements LogBatch {
  readonly events: readonly LogEvent[];
  #frames: string | undefined;

  constructor(events: readonly LogEvent[]) {
    this.events = events;
  }

  get frames(): string {
    return (this.#frames ??= encodeEvents(this.events));
  }

  get isLast(): boolean {
    return isTerminal(this.events.at(-1));
  }
}
