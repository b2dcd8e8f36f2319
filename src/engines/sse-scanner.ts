const LF = 10;
const CR = 13;
const SPACE = 32;
const COLON = 58;
const D = 100;

/**
 * Cuts a byte stream into the `data` of server-sent events, whatever the chunk borders are. Other fields and
 * comments are skipped: no engine says anything in them. Lines stay bytes until they are whole, so a
 * character that is split over two chunks is never broken.
 */
export class SseScanner {
  readonly #onData: (data: string) => void;
  /** Bytes of a line whose end has not arrived. */
  #line: Buffer | undefined;
  /** Data lines of an event whose end has not arrived. */
  #data: string | undefined;

  constructor(onData: (data: string) => void) {
    this.#onData = onData;
  }

  push(chunk: Buffer): void {
    const buffer = this.#line === undefined ? chunk : Buffer.concat([this.#line, chunk]);
    let start = 0;
    for (let end = buffer.indexOf(LF); end !== -1; end = buffer.indexOf(LF, start)) {
      this.#take(buffer, start, end > start && buffer[end - 1] === CR ? end - 1 : end);
      start = end + 1;
    }
    this.#line = start < buffer.length ? buffer.subarray(start) : undefined;
  }

  /** The body ended: what was there counts, terminator or not. */
  end(): void {
    const line = this.#line;
    this.#line = undefined;
    if (line !== undefined) this.#take(line, 0, line.at(-1) === CR ? line.length - 1 : line.length);
    this.#dispatch();
  }

  #take(buffer: Buffer, start: number, end: number): void {
    if (start === end) return this.#dispatch();
    // `data` and its colon; the letters in between cannot be anything else on this wire.
    if (buffer[start] !== D || buffer[start + 4] !== COLON) return;
    const from = buffer[start + 5] === SPACE ? start + 6 : start + 5;
    const data = buffer.toString('utf8', from, end);
    this.#data = this.#data === undefined ? data : `${this.#data}\n${data}`;
  }

  #dispatch(): void {
    const data = this.#data;
    if (data === undefined) return;
    this.#data = undefined;
    this.#onData(data);
  }
}
