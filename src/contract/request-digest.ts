import { hash } from 'node:crypto';
import type { TaskRequest } from './generated/types.ts';

/** What a finished task still says of its request: everything but texts, which are nobody's business any more. */
export function withoutTexts(request: TaskRequest): TaskRequest {
  const { prompt: _prompt, inputs: _inputs, messages: _messages, sampling, ...rest } = request;
  if (!sampling) return rest as TaskRequest;
  const { stop: _stop, grammar: _grammar, json_schema: _schema, ...numbers } = sampling;
  return { ...rest, sampling: numbers } as TaskRequest;
}

/** Longer strings go into the digest by their own, which spares making one string of all that a prompt has. */
const LONG = 1024;

/** Hashes of prompts that were made before anybody asked for them. */
const ahead = new WeakMap<TaskRequest, { prompt: string; hash: string }>();

/**
 * Makes the dearest part of the digest now, in a turn that has room for it: tasks that end together would all make theirs
 * in one, and a prompt of a megabyte takes a millisecond or two.
 */
export function hashAhead(request: TaskRequest): void {
  const { prompt } = request;
  if (prompt !== undefined && prompt.length > LONG) ahead.set(request, { prompt, hash: hashOf(prompt) });
}

/** SHA-256 over the request with its keys in order: equal requests, equal digests. */
export function digestOf(request: TaskRequest): string {
  const made = ahead.get(request);
  const orderly = (_key: string, value: unknown): unknown => {
    if (typeof value === 'string') {
      if (value.length <= LONG) return value;
      return value === made?.prompt ? made.hash : hashOf(value);
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  };
  return hash('sha256', JSON.stringify(request, orderly), 'base64url');
}

function hashOf(text: string): string {
  return `\0${hash('sha256', text)}`;
}
