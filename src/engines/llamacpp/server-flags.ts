import { type LlamaFlag, parseLlamaFlags } from '../../config/llama-flags.ts';

export interface ServerSettings {
  model_path: string;
  host: string;
  port: number;
  slots: number;
  /** Tokens of one slot. @default what the model was made for */
  ctx: number | undefined;
  threads: number;
  /** What the user adds, in any spelling. */
  flags: readonly string[];
}

/**
 * The arguments of llama-server: ours first and in one order, then the user's by name; one spelling each. With one
 * slot they are those of the deterministic profile.
 */
export function serverArguments(settings: ServerSettings): string[] {
  const { model_path, host, port, slots, ctx, threads, flags } = settings;
  const ours: Pick<LlamaFlag, 'name' | 'values'>[] = [
    { name: '--model', values: [model_path] },
    { name: '--host', values: [host] },
    { name: '--port', values: [String(port)] },
    // Without it the slots share one pool of context, and all of them fail when it is full.
    { name: '--parallel', values: [String(slots)] },
    ...(ctx === undefined ? [] : [{ name: '--ctx-size', values: [String(ctx * slots)] }]),
    { name: '--threads', values: [String(threads)] },
    ...(slots === 1 ? [{ name: '--no-cont-batching', values: [] }] : []),
    { name: '--no-webui', values: [] },
    { name: '--metrics', values: [] },
  ];
  const names = new Set(ours.map(({ name }) => name));
  const theirs = parseLlamaFlags(flags);
  const replaced = new Map(theirs.map((flag) => [flag.name, flag]));
  return [
    ...ours.map((flag) => replaced.get(flag.name) ?? flag),
    ...theirs
      .filter(({ name }) => !names.has(name))
      .toSorted((a, b) => (a.name < b.name ? -1 : +(a.name > b.name))),
  ].flatMap(({ name, values }) => [name, ...values]);
}
