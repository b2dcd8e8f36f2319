import { forbidden, unavailable, unobtainable } from '../models/failures.ts';
import { CommandError, runCommand } from './run-command.ts';
import type { PreparedEngine, Step, TellEngineProgress } from './step.ts';
import type { Toolbox } from './toolbox.ts';

/** An image as a pool names it. */
export interface ImageRequest {
  image: string;
  tag?: string;
  digest?: string;
}

const KINDS = ['podman', 'docker'] as const;

/** The image in the form that podman and docker take; a digest makes the tag meaningless. */
export function imageName({ image, tag, digest }: ImageRequest): string {
  return digest === undefined ? `${image}:${tag ?? 'latest'}` : `${image}@${digest}`;
}

/** What would be done; docker where there is no podman. */
export function imageSteps(request: ImageRequest, tools: Toolbox): Step[] {
  const kind = KINDS.find((name) => tools.find(name) !== undefined) ?? 'podman';
  return [
    { kind: 'preflight-tools', human: 'Look for podman, or else for docker.' },
    {
      kind: 'image-pull',
      human: `Pull the image, unless it is here${request.digest === undefined ? '; its tag may mean another one tomorrow' : ''}.`,
      command: [kind, 'pull', imageName(request)],
    },
  ];
}

/**
 * Pulls the image, unless it is here.
 * @throws TaskchartError; the signal's reason
 */
export async function ensureImage(
  request: ImageRequest,
  { tools, offline }: { tools: Toolbox; offline: boolean },
  signal: AbortSignal,
  tell: TellEngineProgress,
): Promise<PreparedEngine> {
  const kind = KINDS.find((name) => tools.find(name) !== undefined);
  const tool = kind && tools.find(kind);
  if (kind === undefined || tool === undefined)
    throw unobtainable(
      'there is neither podman nor docker on PATH; install one of them for provisioning.mode container',
    );
  const name = imageName(request);
  const options = { env: tools.env, signal };
  let digest = await inspect(tool, name, options);
  if (digest === undefined) {
    if (offline)
      throw forbidden(`image "${name}" is not on this machine, and policy.offline forbids to pull it`);
    tell({ phase: 'pulling' });
    try {
      await runCommand([tool, 'pull', name], options);
    } catch (error) {
      if (error instanceof CommandError)
        throw unavailable(`image "${name}" could not be pulled: ${error.message}`);
      throw error;
    }
    digest = await inspect(tool, name, options);
  }
  if (request.digest !== undefined || !digest) return { mode: 'container', tool, kind, image: name };
  tell({
    phase: 'pulling',
    note: `The tag of image ${name} may mean another one tomorrow; today it is ${digest}, which container.digest could name.`,
  });
  return { mode: 'container', tool, kind, image: `${request.image}@${digest}` };
}

/** @returns the digest under which its registry knows it, '' for one that has none, undefined where it is not here */
async function inspect(
  tool: string,
  name: string,
  options: Parameters<typeof runCommand>[1],
): Promise<string | undefined> {
  try {
    const said = await runCommand(
      [tool, 'image', 'inspect', '--format', '{{json .RepoDigests}}', name],
      options,
    );
    return /@(sha256:[0-9a-f]{64})/.exec(said)?.[1] ?? '';
  } catch (error) {
    if (error instanceof CommandError) return undefined;
    throw error;
  }
}
