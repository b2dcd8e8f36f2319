import { readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { modelId, parseModel, type LoadableModelName, type RemoteModelName } from '../config/model.ts';
import { showValue } from '../contract/explain.ts';
import { failure, TaskchartError } from '../errors.ts';
import type { ModelProgress, PreparedModel, ResolvedModel } from '../machines/provisioner.ts';
import { unavailable, unobtainable } from './failures.ts';
import { GgufError, readGgufHeader, type GgufHeader } from './gguf.ts';
import { kvBytesOfHeader } from './kv-size.ts';

export type { ModelProgress, PreparedModel, ResolvedModel };

const BUNDLED_PATH = fileURLToPath(new URL('../../models/storyteller/storyteller.gguf', import.meta.url));

/** What the bundled file has: it comes with the package, and need not be read to be known. */
export const BUNDLED_DIGEST = 'sha256:5267bacf078293cd1234b7a0b72e2f66387ebe9ff3a35083e8ba31557ee0d8b9';

/** Models in files of this machine: the bundled one, `file:` references and plain paths. */
export const fileModels = {
  nameOf: requestedName,

  async locate(model_ref: string): Promise<string | undefined> {
    return localPath(nameOf(model_ref));
  },

  async resolve(model_ref: string): Promise<ResolvedModel> {
    const name = nameOf(model_ref);
    const path = localPath(name);
    if (path === undefined)
      throw unobtainable(`model "${model_ref}" has to be fetched, and nothing here does`);
    return { id: name.kind === 'bundled' ? model_ref : `file:${path}`, path, present: true };
  },

  async fetch(model: ResolvedModel): Promise<ResolvedModel> {
    return model;
  },

  async verify(model: ResolvedModel, signal?: AbortSignal): Promise<PreparedModel> {
    const header = await headerOf(model.path, signal);
    const { size_bytes, context_length } = header;
    const kv_bytes_per_token = kvBytesOfHeader(header);
    return {
      id: model.id,
      path: model.path,
      size_bytes,
      verification: 'warn',
      ...(model.path === BUNDLED_PATH ? { digest: BUNDLED_DIGEST } : {}),
      ...(context_length === undefined ? {} : { context_length }),
      ...(kv_bytes_per_token === undefined ? {} : { kv_bytes_per_token }),
    };
  },
};

/** The same for engines that load a whole folder, whose content is theirs to judge. */
export const folderModels = {
  ...fileModels,

  async verify(model: ResolvedModel): Promise<PreparedModel> {
    const found = await stat(model.path).catch(() => undefined);
    if (!found) throw unavailable(`model folder ${model.path} does not exist`);
    if (!found.isDirectory()) throw unobtainable(`model ${model.path} is a file; this engine takes a folder`);
    return {
      id: model.id,
      path: model.path,
      size_bytes: await sizeOfFolder(model.path),
      verification: 'warn',
    };
  },
};

/** For engines that bring their model themselves: a running server, or none at all. */
export const remoteModels = {
  nameOf: (model_ref: string): string => model_ref,

  async locate(): Promise<string | undefined> {
    return '';
  },

  async resolve(model_ref: string): Promise<ResolvedModel> {
    return { id: model_ref, path: '', present: true };
  },

  async fetch(model: ResolvedModel): Promise<ResolvedModel> {
    return model;
  },

  async verify(model: ResolvedModel): Promise<PreparedModel> {
    return { id: model.id, path: '', size_bytes: 0, verification: 'warn' };
  },
};

/** @throws TaskchartError saying what a right reference looks like */
export function nameOf(model_ref: string): LoadableModelName {
  const name = parseModel(model_ref);
  if (name.kind === 'catalog')
    throw unobtainable(
      `model "${model_ref}": there is no such model in the catalog (POST /v1/catalog/models), and no such file`,
    );
  if (name.kind === 'mistake') throw unobtainable(`model "${model_ref}": must be ${name.expected}`);
  return name;
}

/** The one name of a model that a caller asks for. @throws TaskchartError INVALID_PARAMS */
export function requestedName(model_ref: string): string {
  const name = parseModel(model_ref);
  if (name.kind !== 'mistake') return modelId(name, '.');
  throw new TaskchartError(
    failure('INVALID_PARAMS', `new_model_ref: must be ${name.expected}, got ${showValue(model_ref)}`),
  );
}

/** Whether it is in a file of this machine whose place the reference tells. */
export function isLocal(name: LoadableModelName): name is Exclude<LoadableModelName, RemoteModelName> {
  return name.kind === 'bundled' || name.kind === 'file';
}

function localPath(name: LoadableModelName): string | undefined {
  if (name.kind === 'bundled') return BUNDLED_PATH;
  return name.kind === 'file' ? resolve(name.path) : undefined;
}

async function headerOf(path: string, signal?: AbortSignal): Promise<GgufHeader> {
  try {
    return await readGgufHeader(path, signal ? { signal } : {});
  } catch (error) {
    if (error instanceof GgufError) throw unavailable(`model file ${path}: ${error.message}`);
    signal?.throwIfAborted();
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw unavailable(`model file ${path} does not exist`);
    if (code === 'EISDIR') throw unavailable(`model file ${path} is a folder`);
    throw unavailable(`model file ${path} cannot be read: ${code ?? String(error)}`);
  }
}

/** Caches keep such folders as links to files elsewhere; those count, and what is gone meanwhile does not. */
async function sizeOfFolder(path: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(path, { recursive: true })) {
    const found = await stat(join(path, name)).catch(() => undefined);
    if (found?.isFile()) bytes += found.size;
  }
  return bytes;
}
