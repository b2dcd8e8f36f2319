/** One server-sent event as it was on the wire. */
export interface EventFrame {
  /** The frame's own `id`; one that an earlier frame had does not carry over. */
  id: string | undefined;
  /** `message` where the frame does not say. */
  event: string;
  /** The `data` lines, joined by line feeds. */
  data: string;
}

/**
 * Reads server-sent events from bytes that come in any pieces: cut within a character, a line end or a frame. Comments
 * and frames without data are passed over, and so is a frame that the end of the bytes cuts off.
 */
export class EventStreamReader {
  readonly #decoder = new TextDecoder();
  #rest = '';
  /** The last piece ended with CR: a LF right after it belongs to the same line end. */
  #isAfterCr = false;
  #id: string | undefined;
  #event = '';
  #data: string[] = [];

  /** @returns the frames that these bytes complete */
  push(bytes: Uint8Array): EventFrame[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    const frames: EventFrame[] = [];
    if (text === '') return frames;
    if (this.#isAfterCr && text.startsWith('\n')) text = text.slice(1);
    this.#isAfterCr = text.endsWith('\r');
    const lines = (this.#rest + text).split(text.includes('\r') ? /\r\n|\r|\n/ : '\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line !== '') this.#field(line);
      else {
        const frame = this.#dispatch();
        if (frame) frames.push(frame);
      }
    }
    return frames;
  }

  #field(line: string): void {
    const colon = line.indexOf(':');
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (name === 'data') this.#data.push(value);
    else if (name === 'event') this.#event = value;
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
  }

  #dispatch(): EventFrame | undefined {
    const frame = { id: this.#id, event: this.#event || 'message', data: this.#data.join('\n') };
    const isEmpty = this.#data.length === 0;
    this.#id = undefined;
    this.#event = '';
    this.#data = [];
    return isEmpty ? undefined : frame;
  }
}
