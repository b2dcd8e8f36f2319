/** Other spellings of what is one flag; a flag that is not here is its own normal form. */
const ALIASES: Readonly<Record<string, string>> = {
  '-m': '--model',
  '-a': '--alias',
  '-c': '--ctx-size',
  '--ctx': '--ctx-size',
  '--context': '--ctx-size',
  '-ngl': '--n-gpu-layers',
  '--ngl': '--n-gpu-layers',
  '--gpu-layers': '--n-gpu-layers',
  '-np': '--parallel',
  '-t': '--threads',
  '-tb': '--threads-batch',
  '-b': '--batch-size',
  '-ub': '--ubatch-size',
  '-fa': '--flash-attn',
  '-ts': '--tensor-split',
  '-sm': '--split-mode',
  '-mg': '--main-gpu',
  '-dev': '--device',
  '-s': '--seed',
  '-cb': '--cont-batching',
  '-nocb': '--no-cont-batching',
  '--no-ui': '--no-webui',
  '--embedding': '--embeddings',
  '--rerank': '--reranking',
  '-ctk': '--cache-type-k',
  '-ctv': '--cache-type-v',
  '-ot': '--override-tensor',
};

/** Flags of which each stands beside the others. */
const REPEATED = new Set([
  '--lora',
  '--lora-scaled',
  '--control-vector',
  '--control-vector-scaled',
  '--override-kv',
  '--override-tensor',
]);

/** What a pool says elsewhere, by the key that says it; two places could disagree. */
export const RESERVED_FLAGS: Readonly<Record<string, string>> = {
  '--model': 'model',
  '--parallel': 'slots',
  '--threads': 'threads',
  '--port': 'provisioning.ports',
  '--host': 'nothing: a server that taskchart starts is for this machine only',
  '--api-key': 'nothing: a server that taskchart starts is for this machine only',
  '--api-key-file': 'nothing: a server that taskchart starts is for this machine only',
  '--api-prefix': 'nothing: taskchart asks at the root',
  '--metrics': 'nothing: it is always on',
};

interface Flag {
  name: string;
  values: string[];
}

export interface ServerSettings {
  model_path: string;
  host: string;
  port: number;
  slots: number;
  /** Tokens of one slot. */
  ctx: number | undefined;
  threads: number;
  /** What the user adds. */
  flags: readonly string[];
}

/**
 * The arguments of llama-server: ours first and in one order, then the user's by name; one spelling each, the last of
 * several wins. With one slot they are those of the deterministic profile.
 */
export function serverArguments({
  model_path,
  host,
  port,
  slots,
  ctx,
  threads,
  flags,
}: ServerSettings): string[] {
  const ours: Flag[] = [
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
  const theirs = parse(flags);
  const replaced = new Map(theirs.map((flag) => [flag.name, flag]));
  const names = new Set(ours.map(({ name }) => name));
  return [
    ...ours.map((flag) => replaced.get(flag.name) ?? flag),
    ...theirs.filter(({ name }) => !names.has(name)).toSorted((a, b) => compare(a.name, b.name)),
  ].flatMap(({ name, values }) => [name, ...values]);
}

/** Flags in their normal form, in the order in which they were written. */
export function normalFlags(flags: readonly string[]): string[] {
  return parse(flags).map(({ name }) => name);
}

function parse(flags: readonly string[]): Flag[] {
  const found: Flag[] = [];
  for (const word of flags) {
    if (!isFlag(word)) {
      found.at(-1)?.values.push(word);
      continue;
    }
    const [, written = word, value] = /^(--[^=]+)=(.*)$/s.exec(word) ?? [];
    found.push({ name: ALIASES[written] ?? written, values: value === undefined ? [] : [value] });
  }
  return found.filter(
    ({ name }, index) => REPEATED.has(name) || !found.some((later, at) => at > index && later.name === name),
  );
}

/** A negative number is a value. */
function isFlag(word: string): boolean {
  return word.startsWith('-') && !/^-\d/.test(word);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
