import { type Failure, failure } from '../errors.ts';
import type { OutputConstraint } from './engine.ts';

/**
 * Engines read grammars by recursion on a native stack, and die of those that go deeper than it; the limits keep
 * far from there and far above what people write.
 */
const MAX_GRAMMAR_NESTING = 256;
const MAX_GRAMMAR_CHARACTERS = 128 * 1024;

/** Levels of objects and arrays in a schema; JSON itself is written by recursion too. */
const MAX_SCHEMA_NESTING = 256;

/** @returns why an engine must not be shown this constraint; what it makes of one that passes is its own affair. */
export function constraintRefusal(output: OutputConstraint): Failure | undefined {
  if (output.kind === 'json_schema') {
    if (!deeper(output.schema, MAX_SCHEMA_NESTING)) return undefined;
    return refused(`\`json_schema\` is nested more than ${MAX_SCHEMA_NESTING} levels deep.`);
  }
  if (output.gbnf.length > MAX_GRAMMAR_CHARACTERS) {
    return refused(
      `\`grammar\` is ${output.gbnf.length} characters and may have ${MAX_GRAMMAR_CHARACTERS} at most.`,
    );
  }
  if (nestingOf(output.gbnf) <= MAX_GRAMMAR_NESTING) return undefined;
  return refused(`\`grammar\` nests parentheses more than ${MAX_GRAMMAR_NESTING} levels deep.`);
}

function refused(message: string): Failure {
  return failure('INVALID_PARAMS', message);
}

/** Level by level and not by recursion, which is what it guards from. */
function deeper(value: unknown, levels: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > levels) return true;
    level = level.flatMap((each) =>
      typeof each === 'object' && each !== null ? (Object.values(each) as unknown[]) : [],
    );
  }
  return false;
}

/** What parentheses do not open: literals, character classes, comments. */
const TEXT = /"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?|#[^\n]*|[()]/gsu;

function nestingOf(gbnf: string): number {
  let depth = 0;
  let deepest = 0;
  for (const [piece] of gbnf.matchAll(TEXT)) {
    if (piece === '(') deepest = Math.max(deepest, ++depth);
    else if (piece === ')') depth--;
  }
  return deepest;
}
