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

const LOCAL = 'a server that is started here listens on this machine alone';

/** Flags that a pool does not take, and why: two places could disagree. */
export const RESERVED_FLAGS: ReadonlyMap<string, string> = new Map([
  ['--model', 'model says that'],
  ['--parallel', 'slots says that'],
  ['--threads', 'threads says that'],
  ['--tensor-split', 'tensor_split says that'],
  ['--port', 'provisioning.ports says that'],
  ['--host', LOCAL],
  ['--api-key', LOCAL],
  ['--api-key-file', LOCAL],
  ['--api-prefix', 'it is asked at the root'],
]);

/** A flag of llama-server in its normal form. */
export interface LlamaFlag {
  name: string;
  values: string[];
  /** Where it stood among the words. */
  index: number;
}

/** One spelling for each flag, in the order in which they were written; of several of one flag the last holds. */
export function parseLlamaFlags(words: readonly string[]): LlamaFlag[] {
  const found: LlamaFlag[] = [];
  for (const [index, word] of words.entries()) {
    if (!isFlag(word)) {
      found.at(-1)?.values.push(word);
      continue;
    }
    const [, written = word, value] = /^(--[^=]+)=(.*)$/s.exec(word) ?? [];
    found.push({ name: ALIASES[written] ?? written, values: value === undefined ? [] : [value], index });
  }
  return found.filter(
    ({ name }, at) => REPEATED.has(name) || !found.some((later, i) => i > at && later.name === name),
  );
}

/** A negative number is a value. */
function isFlag(word: string): boolean {
  return word.startsWith('-') && !/^-\d/.test(word);
}
