import { showValue } from '../contract/explain.ts';
import type { LlamacppPool, RemotePool } from '../contract/generated/types.ts';
import type { Mistake } from './checks.ts';
import type { KeyPath } from './error.ts';
import { isMap, type Settings } from './layers.ts';
import { parseLlamaFlags, RESERVED_FLAGS } from './llama-flags.ts';
import { isLoopback, parseModel } from './model.ts';

/** Whether somebody else runs the engine, and has loaded its model. */
export function isElsewhere(mode: string): boolean {
  return mode === 'external' || mode === 'announced';
}

type Provisioned = LlamacppPool | RemotePool;
type At = (...keys: (string | number)[]) => KeyPath;

/** What each mode has a map of its own for. */
const PARTS = ['binary', 'source', 'package', 'container', 'external'] as const;
/** What only goes with a server that is started here, as a pool and its provisioning have it. */
const STARTED_POOL = ['devices', 'tensor_split'] as const;
const STARTED_PROVISIONING = ['ports', 'env', 'flags'] as const;
/** What a mode may be allowed to do to this machine. */
const GATES = { allow_binary_downloads: 'binary', allow_package_installs: 'package' } as const;

/** How a pool's engine comes here: what is needed for its mode, and nothing that has no meaning there. */
export function checkProvisioning(pool: Provisioned, index: number, written: Settings): Mistake | undefined {
  const at: At = (...keys) => ['pools', index, ...keys];
  const asWritten = (written.pools as unknown[] | undefined)?.[index];
  return (
    checkParts(pool, at) ??
    checkStrangers(pool, isMap(asWritten) ? asWritten : {}, at) ??
    checkModel(pool, at) ??
    checkServer(pool, at) ??
    (pool.engine === 'llamacpp'
      ? (checkDownload(pool, at) ?? checkSource(pool, at) ?? checkSplit(pool, at) ?? checkFlags(pool, at))
      : undefined)
  );
}

function checkParts(pool: Provisioned, at: At): Mistake | undefined {
  const { mode } = pool.provisioning;
  const parts: Partial<Record<(typeof PARTS)[number], object>> = pool.provisioning;
  if (pool.engine === 'openai' && mode === 'container')
    return { keys: at('provisioning', 'mode'), message: 'must be external for an openai pool' };
  const stranger = PARTS.find((part) => part !== mode && parts[part] !== undefined);
  if (stranger !== undefined)
    return { keys: at('provisioning', stranger), message: `only goes with provisioning.mode ${stranger}` };
  if (mode === 'external' && parts.external === undefined)
    return pool.engine === 'llamacpp'
      ? {
          keys: at('provisioning', 'external', 'url'),
          message: 'is required with provisioning.mode external (base URL of the llama-server)',
        }
      : { keys: at('provisioning', 'external'), message: 'is required (the server for mode external)' };
  if (mode === 'package' && parts.package === undefined)
    return {
      keys: at('provisioning', 'package', 'name'),
      message: 'is required with provisioning.mode package (name of the package that has llama-server)',
    };
  if (mode === 'container' && parts.container === undefined)
    return {
      keys: at('provisioning', 'container', 'image'),
      message: 'is required with provisioning.mode container (name of the image)',
    };
  return undefined;
}

/** @param written the pool before defaults were filled in */
function checkStrangers(pool: Provisioned, written: Settings, at: At): Mistake | undefined {
  const { mode } = pool.provisioning;
  for (const [gate, of] of Object.entries(GATES))
    if (of !== mode && isMap(written['provisioning']) && written['provisioning'][gate] !== undefined)
      return { keys: at('provisioning', gate), message: `only goes with provisioning.mode ${of}` };
  if (isElsewhere(mode) && pool.engine === 'llamacpp') {
    if (pool.checksum !== undefined)
      return {
        keys: at('checksum'),
        message: `does not go with provisioning.mode ${mode}; such a server loads its model itself`,
      };
    if (written['threads'] !== undefined)
      return {
        keys: at('threads'),
        message: `does not go with provisioning.mode ${mode}; such a server has its own`,
      };
  }
  if (!isElsewhere(mode) && mode !== 'embedded') return undefined;
  const modes = pool.engine === 'llamacpp' ? 'binary, source, package or container' : 'container';
  const message = `only goes with provisioning.mode ${modes}, whose server is started here`;
  const isWritten = (settings: unknown, key: string): boolean =>
    isMap(settings) && settings[key] !== undefined;
  const inPool = STARTED_POOL.find((key) => isWritten(written, key));
  if (inPool !== undefined) return { keys: at(inPool), message };
  const inside = STARTED_PROVISIONING.find((key) => isWritten(written['provisioning'], key));
  return inside === undefined ? undefined : { keys: at('provisioning', inside), message };
}

function checkModel(pool: Provisioned, at: At): Mistake | undefined {
  const { mode, model } = pool.provisioning;
  if (isElsewhere(mode)) {
    if (model === undefined) return undefined;
    const message = `does not go with provisioning.mode ${mode}; such a server loads its model itself`;
    return { keys: at('provisioning', 'model'), message };
  }
  const ref = model?.ref ?? pool.model;
  const expected = pool.engine === 'llamacpp' ? expectedFile(ref) : expectedFolder(ref);
  if (expected === undefined) return undefined;
  const keys = model === undefined ? at('model') : at('provisioning', 'model', 'ref');
  return { keys, message: `must be ${expected}, got ${showValue(ref)}` };
}

/** @returns what the reference should be, where it is not one that llama.cpp can load */
function expectedFile(text: string): string | undefined {
  const name = parseModel(text);
  if (name.kind === 'mistake') return name.expected;
  const isFolder = name.kind === 'hf' && name.file === undefined && name.quant === undefined;
  if (!isFolder) return undefined;
  const { repo } = name;
  return `one GGUF of the repository: hf:${repo}/path/file.gguf or hf:${repo}:QUANT, such as hf:${repo}:Q4_K_M`;
}

/** @returns the same for an engine that loads a whole folder */
function expectedFolder(text: string): string | undefined {
  const name = parseModel(text);
  const isFolder =
    name.kind === 'file' || (name.kind === 'hf' && name.file === undefined && name.quant === undefined);
  return isFolder
    ? undefined
    : 'hf:org/repo or file: and a folder, with provisioning.mode container; a name of its own is for a server that runs already';
}

/** A server that somebody else runs. A key in the address would be shown wherever the address is. */
function checkServer(pool: Provisioned, at: At): Mistake | undefined {
  const { external } = pool.provisioning;
  if (external !== undefined) {
    const keys = at('provisioning', 'external', 'url');
    const url = URL.parse(external.url);
    if (url === null)
      return { keys, message: `must be an http or https URL, got ${showValue(external.url)}` };
    if (hasUser(url))
      return { keys, message: 'must be without a user and a password; a key goes into api_key' };
    if (url.search !== '' || url.hash !== '')
      return { keys, message: 'must end with the path: what follows a ? or a # has no meaning here' };
  }
  if (pool.engine === 'triton' && pool.ctx === undefined)
    return { keys: at('ctx'), message: 'is required for triton, which does not tell it (tokens)' };
  return undefined;
}

function checkDownload({ provisioning }: LlamacppPool, at: At): Mistake | undefined {
  const { path, url, checksum, install_dir } = provisioning.binary ?? {};
  const keys = at('provisioning', 'binary', 'url');
  if (url === undefined) {
    const stray = checksum !== undefined ? 'checksum' : install_dir !== undefined ? 'install_dir' : undefined;
    if (stray === undefined) return undefined;
    return { keys: at('provisioning', 'binary', stray), message: 'only goes with binary.url' };
  }
  if (path !== undefined)
    return { keys, message: 'does not go with binary.path, which is a program that is here already' };
  const from = URL.parse(url);
  if (from === null || (from.protocol === 'http:' && !isLoopback(from.hostname)))
    return { keys, message: `must be an https URL, got ${showValue(url)}` };
  if (hasUser(from)) return { keys, message: 'must be without a user and a password' };
  if (checksum === undefined)
    return {
      keys: at('provisioning', 'binary', 'checksum'),
      message: 'is required with binary.url (sha256: and 64 hex digits): what is downloaded is run',
    };
  return undefined;
}

function checkSource({ provisioning }: LlamacppPool, at: At): Mistake | undefined {
  const { source } = provisioning;
  if (source === undefined) return undefined;
  if (source.repo !== undefined && source.ref === undefined)
    return {
      keys: at('provisioning', 'source', 'ref'),
      message: 'is required with source.repo (a commit, a tag or a branch)',
    };
  if (source.repo === undefined && source.ref !== undefined)
    return {
      keys: at('provisioning', 'source', 'ref'),
      message: 'only goes with source.repo; the llama.cpp that comes with this package has one version',
    };
  const url = URL.parse(source.repo ?? '');
  if (url && hasUser(url))
    return {
      keys: at('provisioning', 'source', 'repo'),
      message: 'must be without a user and a password; git has places of its own for them',
    };
  return undefined;
}

/** What is split without being told so ends where the smallest device is full, and nobody knows why. */
function checkSplit({ devices, tensor_split: split }: LlamacppPool, at: At): Mistake | undefined {
  const keys = at('tensor_split');
  if (devices.length > 1 && split.length === 0)
    return {
      keys,
      message: `is required with several devices: the share of the model on each of the ${devices.length}, such as [${devices.map(() => 1).join(', ')}]`,
    };
  if (split.length === 0) return undefined;
  if (devices.length < 2) return { keys, message: 'only goes with several devices' };
  if (split.length !== devices.length)
    return {
      keys,
      message: `must have one share for each of the ${devices.length} devices, got ${split.length}`,
    };
  if (split.every((share) => share === 0)) return { keys, message: 'must have a share above 0' };
  return undefined;
}

function checkFlags({ ctx, provisioning }: LlamacppPool, at: At): Mistake | undefined {
  for (const { name, index } of parseLlamaFlags(provisioning.flags)) {
    const why = name === '--ctx-size' && ctx !== undefined ? 'ctx says that' : RESERVED_FLAGS.get(name);
    if (why !== undefined)
      return { keys: at('provisioning', 'flags', index), message: `must not be ${name}: ${why}` };
  }
  const first = provisioning.flags[0];
  if (first !== undefined && !first.startsWith('-'))
    return {
      keys: at('provisioning', 'flags', 0),
      message: `must be a flag such as --n-gpu-layers, got ${showValue(first)}`,
    };
  return undefined;
}

function hasUser(url: URL): boolean {
  return url.username !== '' || url.password !== '';
}
