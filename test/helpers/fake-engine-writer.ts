/** The bytes of the fake engines' streams, and what can be wrong with them. */
import type { ServerResponse } from 'node:http';
import type { FakeEngineOptions, Reply, StreamFault } from './fake-engine.ts';

export class Writer {
  readonly #res: ServerResponse;
  readonly #newline: string;
  readonly #chop: number | undefined;
  #pending = '';

  constructor(res: ServerResponse, { crlf, chop }: FakeEngineOptions) {
    this.#res = res;
    this.#newline = crlf ? '\r\n' : '\n';
    this.#chop = chop;
  }

  frame(body: object): void {
    this.raw(JSON.stringify(body));
  }

  raw(data: string): void {
    // Some engines write the space after the colon, some do not.
    this.#pending += `data:${this.#chop === undefined ? ' ' : ''}${data}${this.#newline}${this.#newline}`;
  }

  comment(): void {
    this.#pending += `:${this.#newline}${this.#newline}`;
  }

  flush(): void {
    const bytes = Buffer.from(this.#pending);
    this.#pending = '';
    const size = this.#chop ?? bytes.length;
    for (let at = 0; at < bytes.length; at += size) this.#res.write(bytes.subarray(at, at + size));
  }

  fault(kind: StreamFault, { error, done, token }: Extract<Reply, { kind: 'stream' }>): void {
    this.flush();
    const bytes = Buffer.from(`data: ${JSON.stringify(token(' 🎈', 99, undefined, 1)[0])}`);
    switch (kind) {
      case 'error_frame':
        this.frame(error);
        if (done) this.raw('[DONE]');
        break;
      case 'garbage':
        this.raw('{"choices": [half a fra');
        break;
      case 'odd_frame':
        this.raw('["a list"]');
        break;
      case 'cut_frame':
        this.#res.write(bytes.subarray(0, 12));
        break;
      case 'cut_character':
        this.#res.write(bytes.subarray(0, bytes.indexOf(0xf0) + 2), () =>
          this.#res.socket?.resetAndDestroy(),
        );
        return;
      case 'reset':
        this.#res.write('', () => this.#res.socket?.resetAndDestroy());
        return;
      case 'truncate':
    }
    this.flush();
    this.#res.end();
  }
}
