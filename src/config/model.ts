import { isAbsolute, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The bundled model. */
const STORYTELLER = 'storyteller';

/** A model as a pool names it. */
export type ModelName = { kind: 'bundled'; name: typeof STORYTELLER } | { kind: 'file'; path: string };

/** @returns undefined for a scheme that this version does not know */
export function parseModel(text: string): ModelName | undefined {
  if (text === STORYTELLER) return { kind: 'bundled', name: STORYTELLER };
  if (/^file:\/\//i.test(text)) return fromUrl(text);
  if (/^file:./i.test(text)) return { kind: 'file', path: text.slice('file:'.length) };
  // One letter before the colon is a drive.
  if (/^[a-z][a-z0-9+.-]+:/i.test(text) && !isAbsolute(text)) return undefined;
  return { kind: 'file', path: text };
}

/** The one name of a model: `storyteller`, or `file:` and an absolute path. */
export function modelId(model: ModelName, folder: string): string {
  return model.kind === 'bundled' ? model.name : `file:${resolve(folder, model.path)}`;
}

function fromUrl(text: string): ModelName | undefined {
  try {
    return { kind: 'file', path: fileURLToPath(text) };
  } catch {
    return undefined;
  }
}
