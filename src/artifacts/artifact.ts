import { createHash, hash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { explain } from '../contract/explain.ts';
import { artifactFields } from '../contract/generated/fields.js';
import type { Artifact, ArtifactRef } from '../contract/generated/types.ts';
import { validateArtifact } from '../contract/generated/validators.js';
import { failure, TaskchartError } from '../errors.ts';
import { canonicalJson } from './canonical-json.ts';

/** Deeper values overflow stacks of what writes them. */
const MOST_LEVELS = 64;
const ID = /^sha256:([0-9a-f]{64})$/;

/**
 * Checks an artifact against the contract, and keeps its five fields.
 * @throws TaskchartError INVALID_PARAMS, its message names the field and what would be right
 */
export function parseArtifact(body: unknown): Artifact {
  if (!validateArtifact(body)) {
    const { path, message, text } = explain(validateArtifact.errors, body, artifactFields);
    throw invalid(path === '' ? `the body ${message}` : text);
  }
  const { kind, content, tags, parent, metadata } = body;
  for (const [name, value] of Object.entries({ content, metadata })) {
    const mistake = mistakeOf(value);
    if (mistake) throw invalid(`${name}: ${mistake}`);
  }
  return {
    kind,
    content,
    ...(tags === undefined ? {} : { tags }),
    ...(parent === undefined ? {} : { parent }),
    ...(metadata === undefined ? {} : { metadata }),
  };
}

/** An artifact as it is stored: its canonical text, and the digest of that. */
export interface Sealed {
  /** Hexadecimal digits. */
  digest: string;
  text: string;
  bytes: number;
}

export function seal(artifact: Artifact): Sealed {
  const text = canonicalJson(artifact);
  return { digest: digestOf(text), text, bytes: Buffer.byteLength(text) };
}

/** How many entries of a long list take about a millisecond. */
const AT_ONCE = 500;

/**
 * The digest that {@link seal} would give, of an artifact whose content is nothing but one list: a piece of it in each
 * turn of the event loop, so that a long one holds nobody up.
 */
export async function digestOfLong({ content, ...rest }: Artifact, list: string): Promise<string> {
  const digest = createHash('sha256').update(`{"content":{${JSON.stringify(list)}:[`);
  const entries = content[list] as unknown[];
  for (let start = 0; start < entries.length; start += AT_ONCE) {
    const some = canonicalJson(entries.slice(start, start + AT_ONCE)).slice(1, -1);
    digest.update(start === 0 ? some : `,${some}`);
    await turn();
  }
  // `content` is the first of the five in their order, and others follow.
  return digest.update(`]},${canonicalJson(rest).slice(1)}`).digest('hex');
}

/** SHA-256 as hexadecimal digits. */
export function digestOf(text: string | Uint8Array): string {
  return hash('sha256', text);
}

/** The digest in an artifact's id; undefined for anything else, so that no other text becomes a file's name. */
export function digestIn(id: string): string | undefined {
  return ID.exec(id)?.[1];
}

/** An artifact without its content. */
export function refOf({ kind, tags }: Artifact, digest: string, created_ms: number): ArtifactRef {
  const id = `sha256:${digest}`;
  return { id, kind, digest: id, created_ms, ...(tags === undefined ? {} : { tags }) };
}

/** What JSON cannot keep, or nobody should. By levels and not by calls, since it is here to spare the stack. */
function mistakeOf(value: unknown): string | undefined {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MOST_LEVELS) return `must not be nested deeper than ${MOST_LEVELS} levels`;
    if (level.some((node) => typeof node === 'number' && !Number.isFinite(node)))
      return 'must not have numbers that are too large to be kept';
    level = level.flatMap((node) => (typeof node === 'object' && node !== null ? Object.values(node) : []));
  }
  return undefined;
}

function invalid(message: string): TaskchartError {
  return new TaskchartError(failure('INVALID_PARAMS', message));
}
