import { isOver } from '../../machines/task.ts';
import { encodeEvents } from '../../streams/frames.ts';
import { gather } from '../gather.ts';
import type { Handler, HttpOptions } from '../handler.ts';
import { interleaved } from '../interleave.ts';
import { encodeTogether, microbatched } from '../microbatch.ts';
import { inWords, progressOf } from '../narration.ts';
import { preparationOf } from '../preparation.ts';
import { queryOf, wholeNumber, yesOrNo } from '../query.ts';
import { SSE_HEADERS, writeEvents, type Heartbeats } from '../sse.ts';
import { budgetHeaders } from './submission.ts';
import { knownTask } from './tasks.ts';

/** Made once: a reason of its own for each reader that leaves costs as much as opening its stream. */
const LEFT = new Error('the reader left');

export function streamRoutes(
  {
    orchestrator,
    clock,
    narration_enabled,
    narration_period_ms: period_ms,
    microbatch_window_ms,
    dropped,
  }: HttpOptions,
  heartbeats: Heartbeats,
): Record<'streamTask', Handler> {
  return {
    async streamTask(ctx) {
      const record = knownTask(orchestrator, ctx['params'].id);
      const header = ctx.get('Last-Event-ID');
      const rule = { right: 'the id of an event (a whole number from 0)' };
      const after =
        header === ''
          ? wholeNumber('after', queryOf(ctx, 'after'), rule)
          : wholeNumber('Last-Event-ID', header, rule);
      const asked = queryOf(ctx, 'verbose');
      const verbose = asked === undefined ? undefined : yesOrNo('verbose', asked);
      // What is over is told to those who ask: without a word, a stream is the same whenever it is read.
      const isTold = verbose ?? (narration_enabled && !isOver(record.state));
      // A reader that comes back by itself would do so for ever if it were answered with an empty stream.
      if (after !== undefined && (await orchestrator.hasAll(record, after))) {
        ctx.status = 204;
        return;
      }
      const headers = { ...SSE_HEADERS, ...budgetHeaders(orchestrator.sessions, record.session_id) };
      // The headers are all there is to say; the log may go on for minutes.
      if (ctx.method === 'HEAD') {
        ctx.status = 200;
        ctx.set(headers);
        return;
      }
      ctx.respond = false;
      // It may have left while what an earlier process has accepted was read back; nobody would hear of it again.
      if (ctx.res.closed) return;
      const gone = new AbortController();
      const leave = orchestrator.attachReader(record);
      ctx.res.once('close', () => {
        leave();
        gone.abort(LEFT);
      });
      // What the log has already leaves with the headers: a stream that is over is one write.
      const { socket } = ctx.res;
      socket?.cork();
      ctx.res.writeHead(200, headers);
      ctx.res.flushHeaders();
      void gather()
        .then(gather)
        .then(() => socket?.uncork());
      heartbeats.add(ctx.res);
      const { signal } = gone;
      const log = orchestrator.read(record.id, after, signal);
      const isBatched = microbatch_window_ms !== undefined;
      const batches = isBatched ? microbatched(log, microbatch_window_ms, clock) : log;
      const prepared = verbose ? interleaved(batches, preparationOf(orchestrator, record, dropped)) : batches;
      const encode = isBatched ? encodeTogether : encodeEvents;
      const told = isTold ? inWords(prepared, () => orchestrator.timesOf(record), encode) : prepared;
      const shown =
        isTold && period_ms > 0
          ? interleaved(told, progressOf({ orchestrator, record, clock, period_ms, dropped }))
          : told;
      await writeEvents(ctx.res, shown, signal);
    },
  };
}
