import { isTerminal, type LogBatch, type LogEvent } from './task-log.ts';

/** The wire form of events (server-sent events): `id` is the resume point, and each is its own frame. */
export function encodeEvents(events: readonly LogEvent[]): string {
  let frames = '';
  for (const { id, type, data } of events)
    frames += `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
  return frames;
}

/** The events of whole frames that {@link encodeEvents} has made. */
export function decodeEvents(frames: string): LogEvent[] {
  return frames
    .split('\n\n')
    .slice(0, -1)
    .map((frame) => {
      const [id = '', type = '', data = ''] = frame.split('\n');
      return {
        id: Number(id.slice('id: '.length)),
        type: type.slice('event: '.length),
        data: JSON.parse(data.slice('data: '.length)) as unknown,
      } as LogEvent;
    });
}

/** Frames from the one of event `id` on; empty where it is not among them. */
export function framesFrom(frames: Uint8Array, id: number): Uint8Array {
  if (id === 0) return frames;
  // JSON has no line break of its own, so this can only be where a frame begins.
  const boundary = Buffer.from(frames.buffer, frames.byteOffset, frames.byteLength).indexOf(
    `\n\nid: ${id}\n`,
  );
  return boundary === -1 ? frames.subarray(frames.length) : frames.subarray(boundary + 2);
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

/** The end of a closed log, as it was stored; made into events where somebody asks for those. */
export class StoredBatch implements LogBatch {
  readonly frames: Uint8Array;
  readonly isLast = true;
  #events: readonly LogEvent[] | undefined;

  constructor(frames: Uint8Array) {
    this.frames = frames;
  }

  get events(): readonly LogEvent[] {
    return (this.#events ??= decodeEvents(new TextDecoder().decode(this.frames)));
  }
}
