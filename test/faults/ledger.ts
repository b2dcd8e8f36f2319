import type { AdmissionResponse, TaskInfo, TaskRequest } from '../../src/contract/generated/types.ts';

/** One event as a reader saw it. */
export interface Seen {
  id: number;
  type: string;
  /** The data as it was on the wire; of the client library, as JSON. */
  data: string;
}

/** What one reader was given over all its connections, in the order in which it came. */
export interface Reading {
  via: 'wire' | 'client';
  /** Events before this one were not asked for. */
  first: number;
  seen: Seen[];
  connections: number;
  /** Whatever a reader must not meet. */
  mishaps: string[];
}

/** A task that somebody wants, and everything that was said of it. */
export interface Wish {
  name: string;
  request: TaskRequest;
  idempotency_key: string | undefined;
  /** Whether it is posted again where no answer came. */
  insists: boolean;
  /** Posts whose answer never came. */
  unanswered: number;
  admission: AdmissionResponse | undefined;
  /** Status and code of a refusal. */
  refused: { status: number; code: string } | undefined;
  is_cancel_sent: boolean;
  is_canceled: boolean;
  /** What `GET` said when the task was over for the first time. */
  over: TaskInfo | undefined;
  readings: Reading[];
}

/** Everything that the clients of a daemon were told; what they were told wrong is in `mishaps`. */
export class Ledger {
  readonly wishes: Wish[] = [];
  readonly mishaps: string[] = [];

  wish(name: string, request: TaskRequest, idempotency_key: string | undefined, insists: boolean): Wish {
    const wish: Wish = {
      name,
      request,
      idempotency_key,
      insists,
      unanswered: 0,
      admission: undefined,
      refused: undefined,
      is_cancel_sent: false,
      is_canceled: false,
      over: undefined,
      readings: [],
    };
    this.wishes.push(wish);
    return wish;
  }

  get accepted(): Wish[] {
    return this.wishes.filter(({ admission }) => admission !== undefined);
  }
}

export function isOver({ state }: { state: TaskInfo['state'] }): boolean {
  return state === 'ended' || state === 'error';
}
