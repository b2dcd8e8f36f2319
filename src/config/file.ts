import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type * as Yaml from 'yaml';
import { ConfigError, type KeyPath } from './error.ts';
import { isMap, type Settings } from './layers.ts';

/** What a configuration file says. */
export interface ConfigFile {
  settings: Settings;
  /** `file:line` of a setting, or of the nearest one above it that the file has. */
  locate(keys: KeyPath): string;
}

/**
 * Reads YAML, and so JSON as well.
 * @throws ConfigError when the file cannot be read, is not YAML or is not a map
 */
export function readConfigFile(path: string): ConfigFile {
  const text = readText(path);
  // Loaded only where there is a file: the parser would double the start-up time of a daemon without one.
  const { LineCounter, parseDocument } = createRequire(import.meta.url)('yaml') as typeof Yaml;
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [mistake] = document.errors;
  if (mistake !== undefined) {
    const message = mistake.message.replaceAll(/\s+/g, ' ');
    throw new ConfigError(`${path}:${lines.linePos(mistake.pos[0]).line}: ${message}`);
  }
  const settings: unknown = readAliases(path, () => document.toJS() as unknown) ?? {};
  if (!isMap(settings)) throw new ConfigError(`${path}: must be a map of settings`);
  return {
    settings,
    locate(keys) {
      for (let length = keys.length; length > 0; length--) {
        const node = document.getIn(keys.slice(0, length), true) as { range?: [number] } | undefined;
        if (node?.range) return `${path}:${lines.linePos(node.range[0]).line}`;
      }
      return path;
    },
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'there is no such file' : `it cannot be read (${String(code)})`;
    throw new ConfigError(`${path}: ${reason}`);
  }
}

/** An alias without an anchor, or too many of them, shows only when the document is built. */
function readAliases(path: string, build: () => unknown): unknown {
  try {
    return build();
  } catch (thrown) {
    throw new ConfigError(`${path}: ${(thrown as Error).message.replaceAll(/\s+/g, ' ')}`);
  }
}
