import { isDeepStrictEqual } from 'node:util';
import type { TaskInfo, TaskSummary } from '../../src/contract/generated/types.ts';
import { isOver, type Ledger, type Reading, type Seen, type Wish } from './ledger.ts';

/** A task as the daemon tells it at the end: what it is, and every event of it. */
export interface Told {
  info: TaskInfo;
  log: readonly Seen[];
}

/** What is wrong, in words; a task's name says which one. */
export type Finding = string;

/** A task that stands for itself: its state, its log, and what one undisturbed run would have written. */
export function findingsOfTask({ info, log }: Told, text: string): Finding[] {
  const findings: Finding[] = [];
  const say = (what: string): void => void findings.push(`task ${info.task_id} (${info.model_ref}) ${what}`);
  if (!isOver(info)) say(`is not over but ${info.state}`);
  if (log.some(({ id }, place) => id !== place)) say(`has ids ${log.map(({ id }) => id).join(' ')}`);
  if (log.filter(({ type }) => type === 'started').length !== 1 || log[0]?.type !== 'started')
    say('does not begin with its one started');
  const ends = log.filter(({ type }) => type === 'end' || type === 'error');
  if (ends.length !== 1 || log.at(-1) !== ends[0])
    say(`has ${ends.length} terminal events, or one too early`);
  if (log.at(-1)?.id !== info.last_event_id) say(`says that its last event is ${info.last_event_id}`);

  const tokens = log
    .filter(({ type }) => type === 'token')
    .map(({ data }) => JSON.parse(data) as { t: string; i: number });
  if (tokens.some(({ i }, place) => i <= (tokens[place - 1]?.i ?? -1)))
    say(`has token indices ${tokens.map(({ i }) => i).join(' ')}`);
  const written = tokens.map(({ t }) => t).join('');
  if (written !== info.text) say(`says "${info.text}" and has streamed "${written}"`);
  const end = JSON.parse(ends[0]?.data ?? '{}') as Record<string, unknown>;
  const isWhole = info.state === 'ended' && info.canceled !== true;
  if (isWhole ? written !== text : !text.startsWith(written))
    say(`has written "${written}" and an undisturbed run "${text}"`);
  if (info.state === 'ended' && info.usage?.tokens_out !== end['tokens_out'])
    say(`counts ${info.usage?.tokens_out} tokens, its end ${String(end['tokens_out'])}`);
  if (info.state === 'ended' && info.model_ref !== 'storyteller' && end['tokens_out'] !== tokens.length)
    say(`counts ${String(end['tokens_out'])} tokens and has streamed ${tokens.length}`);
  if ((end['canceled'] === true) !== (info.canceled === true)) say('is canceled only in half');
  if ((ends[0]?.type === 'error') !== (info.state === 'error'))
    say(`ends with ${ends[0]?.type} and is ${info.state}`);
  if (info.state === 'error' && !(typeof end['code'] === 'string' && typeof end['retriable'] === 'boolean'))
    say('has an error that is not typed');
  return findings;
}

/** What was said of a task to those who wanted it, against what it is. */
export function findingsOfWish(wish: Wish, told: Told): Finding[] {
  const findings: Finding[] = [];
  const { info, log } = told;
  const say = (what: string): void => void findings.push(`${wish.name} (${info.task_id}) ${what}`);
  if (info.canceled === true && !wish.is_cancel_sent) say('was canceled by nobody');
  if (wish.over) {
    // The process that ended it had measured it by its own clock.
    const { timings: _then, ...then } = wish.over;
    const { timings: _now, ...now } = info;
    for (const field of new Set([...Object.keys(then), ...Object.keys(now)]) as Set<keyof typeof now>)
      if (!isDeepStrictEqual(then[field], now[field]))
        say(
          `had ${field} ${JSON.stringify(then[field])} when it ended and has now ${JSON.stringify(now[field])}`,
        );
  }
  for (const reading of wish.readings) findings.push(...findingsOfReading(wish.name, reading, log));
  return findings;
}

function findingsOfReading(name: string, reading: Reading, log: readonly Seen[]): Finding[] {
  const { via, first, seen, connections } = reading;
  const who = `a reader of ${name} (${via}, ${connections} connections)`;
  const findings = reading.mishaps.map((mishap) => `${who}: ${mishap}`);
  const expected = log.slice(first);
  for (let place = 0; place < Math.max(seen.length, expected.length); place++) {
    const [given, there] = [seen[place], expected[place]];
    if (isDeepStrictEqual(given, there)) continue;
    findings.push(`${who} got ${JSON.stringify(given)} where the log has ${JSON.stringify(there)}`);
    break;
  }
  return findings;
}

/** Every task that exists against everything that was wanted: none is missing, none is there twice or for nothing. */
export function findingsOfAll(ledger: Ledger, tasks: readonly TaskSummary[]): Finding[] {
  const findings: Finding[] = [];
  const listed = new Map(tasks.map((task) => [task.task_id, task]));
  if (listed.size !== tasks.length) findings.push('a task is listed twice');
  const wanted = new Set<string>();
  const lost = new Map<string, number>();
  for (const { name, request, admission, unanswered } of ledger.wishes) {
    const id = admission?.task_id ?? request.task_id;
    if (id !== undefined) wanted.add(id);
    else if (unanswered > 0)
      lost.set(request.session_id ?? '', (lost.get(request.session_id ?? '') ?? 0) + 1);
    if (admission && !listed.has(admission.task_id))
      findings.push(`${name} was accepted as ${admission.task_id} and is not there`);
  }
  // Posts without an id whose answer was lost: each may have become one task of its session.
  for (const { task_id, session_id = '' } of tasks) {
    if (wanted.has(task_id)) continue;
    const left = lost.get(session_id) ?? 0;
    if (left === 0) findings.push(`task ${task_id} was wanted by nobody`);
    lost.set(session_id, left - 1);
  }
  return findings;
}

/** Tasks of a pool with one slot: within a class each gets its slot after all that were accepted before it. */
export function findingsOfOrder(tasks: readonly TaskSummary[]): Finding[] {
  const findings: Finding[] = [];
  for (const priority of ['interactive', 'batch']) {
    const placed = tasks
      .filter((task) => task.priority === priority && task.timings?.placed_ms !== undefined)
      .map(({ task_id, timings }) => ({
        task_id,
        at: (timings?.admitted_ms ?? 0) + (timings?.placed_ms ?? 0),
      }));
    for (const [place, { task_id, at }] of placed.entries()) {
      const before = placed[place - 1];
      // Wall time is in whole milliseconds, and each process has its own start of monotonic time.
      if (before && at < before.at - 3)
        findings.push(
          `${priority} task ${task_id} ran ${before.at - at} ms before ${before.task_id}, which was accepted before it`,
        );
    }
  }
  return findings;
}
