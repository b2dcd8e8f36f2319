/** The frames of the fake llama-server's streams. */
import type { ServerResponse } from 'node:http';

export type Fault = 'error_frame' | 'truncate' | 'reset' | 'null_frame' | 'garbage';

export class FrameWriter {
  readonly #res: ServerResponse;
  readonly #newline: string;
  readonly #chop: number | undefined;
  #pending: string[] = [];

  constructor(res: ServerResponse, options: { crlf?: boolean; chop?: number }) {
    this.#res = res;
    this.#newline = options.crlf ? '\r\n' : '\n';
    this.#chop = options.chop;
  }

  frame(body: object | null): void {
    this.#pending.push(`data: ${JSON.stringify(body)}${this.#newline}${this.#newline}`);
  }

  ping(): void {
    this.#pending.push(`:${this.#newline}${this.#newline}`);
  }

  flush(): void {
    const bytes = Buffer.from(this.#pending.join(''));
    this.#pending = [];
    const size = this.#chop ?? bytes.length;
    for (let at = 0; at < bytes.length; at += size) this.#res.write(bytes.subarray(at, at + size));
  }

  end(stop_type: string, content: string, predicted: number, promptTokens: number, stopping_word = ''): void {
    const timings = { cache_n: 0, prompt_n: promptTokens, predicted_n: predicted };
    const counts = { tokens_predicted: predicted, tokens_evaluated: promptTokens };
    this.frame({
      content,
      tokens: [],
      stop: true,
      stop_type,
      stopping_word,
      truncated: false,
      ...counts,
      timings,
    });
    this.flush();
    this.#res.end();
  }

  fault(kind: Fault): void {
    if (kind === 'error_frame') {
      this.frame({ error: { code: 500, message: 'Context size has been exceeded.', type: 'server_error' } });
    }
    if (kind === 'null_frame') this.frame(null);
    if (kind === 'garbage') this.#pending.push('data: {"content": "half a fra\n\n');
    this.flush();
    if (kind === 'reset') this.#res.socket?.resetAndDestroy();
    else this.#res.end();
  }
}

export function tokenFrame(content: string, predicted: number, promptTokens: number): object {
  return {
    index: 0,
    content,
    tokens: [predicted],
    stop: false,
    id_slot: -1,
    tokens_predicted: predicted,
    tokens_evaluated: promptTokens,
  };
}

/** The text depends on the seed and the place in the context only, so a resumed run goes on with the same text. */
export function tokenText(seed: number, position: number): string {
  const place = seed + position;
  return place % 7 === 0 ? ` é${place}🎈` : ` w${place}`;
}
