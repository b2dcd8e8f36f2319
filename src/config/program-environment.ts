import type { Environment } from './environment.ts';

/** Names of what nobody but this process should know. */
const SECRET = /TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL|PRIVATE/i;

/**
 * What programs that are started here (engines, build tools) get of this process's environment: everything but its own
 * settings and what looks like a secret. A pool names what its engine needs beside that in `provisioning.env`.
 */
export function programEnvironment(env: Environment): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter(
      (entry): entry is [string, string] =>
        entry[1] !== undefined && !entry[0].startsWith('TASKCHART_') && !SECRET.test(entry[0]),
    ),
  );
}
