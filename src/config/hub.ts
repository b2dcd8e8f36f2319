import { showValue } from '../contract/explain.ts';
import type { Environment } from './environment.ts';
import { ConfigError } from './error.ts';
import { isLoopback } from './model.ts';

/** The model hub, as its own tools are told about it. */
export interface HubSettings {
  /** Base URL. @default the public one */
  endpoint?: string;
  /** Secret. */
  token?: string;
}

/** Reads `HF_ENDPOINT` and `HF_TOKEN`. @throws ConfigError */
export function readHub({ HF_ENDPOINT: endpoint, HF_TOKEN: token }: Environment): HubSettings {
  if (endpoint !== undefined && endpoint !== '' && !isSafe(endpoint))
    throw new ConfigError(
      `HF_ENDPOINT: must be an https URL such as https://huggingface.co, got ${showValue(endpoint)}`,
    );
  return {
    ...(endpoint === undefined || endpoint === '' ? {} : { endpoint }),
    ...(token === undefined || token.trim() === '' ? {} : { token: token.trim() }),
  };
}

/** The token goes there: nobody on the way may read it. */
function isSafe(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname } = new URL(text);
  return protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname));
}
