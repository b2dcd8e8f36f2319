import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseModel } from '../config/model.ts';
import { failure, TaskchartError } from '../errors.ts';
import type { PreparedModel, ResolvedModel } from '../machines/provisioner.ts';
import { GgufError, readGgufHeader, type GgufHeader } from './gguf.ts';

const BUNDLED_PATH = fileURLToPath(new URL('../../models/storyteller/storyteller.gguf', import.meta.url));

function unavailable(message: string): TaskchartError {
  return new TaskchartError(failure('POOL_UNAVAILABLE', message));
}

/** Models in files of this machine: the bundled one, `file:` references and plain paths. */
export const fileModels = {
  async resolve(model_ref: string): Promise<ResolvedModel> {
    const name = parseModel(model_ref);
    if (!name)
      throw unavailable(
        `model "${model_ref}": this reference is not supported; give file:/path/to/model.gguf`,
      );
    if (name.kind === 'bundled') return { id: model_ref, path: BUNDLED_PATH, present: true };
    const path = resolve(name.path);
    return { id: `file:${path}`, path, present: true };
  },

  async fetch(model: ResolvedModel): Promise<ResolvedModel> {
    return model;
  },

  async verify(model: ResolvedModel): Promise<PreparedModel> {
    const { size_bytes, context_length } = await headerOf(model.path);
    return {
      id: model.id,
      path: model.path,
      size_bytes,
      verification: 'warn',
      ...(context_length === undefined ? {} : { context_length }),
    };
  },
};

/** For engines that bring their model themselves: a running server, or none at all. */
export const remoteModels = {
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

async function headerOf(path: string): Promise<GgufHeader> {
  try {
    return await readGgufHeader(path);
  } catch (error) {
    if (error instanceof GgufError) throw unavailable(`model file ${path}: ${error.message}`);
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw unavailable(`model file ${path} does not exist`);
    if (code === 'EISDIR') throw unavailable(`model file ${path} is a folder`);
    throw unavailable(`model file ${path} cannot be read: ${code ?? String(error)}`);
  }
}
