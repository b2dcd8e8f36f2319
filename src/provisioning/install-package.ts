import { forbidden, unobtainable } from '../models/failures.ts';
import { installedServer, LLAMA_SERVER } from './llama-server.ts';
import { CommandError, runCommand } from './run-command.ts';
import type { PreparedEngine, Step, TellEngineProgress } from './step.ts';
import type { Toolbox } from './toolbox.ts';

/** A package of the system that has llama-server. */
export interface PackageRequest {
  name: string;
  version?: string;
  repo?: string;
  /** Whether the configuration lets it be installed. */
  is_allowed: boolean;
}

/** What would be done, unless there is a llama-server already. */
export function packageSteps(request: PackageRequest): Step[] {
  return [
    {
      kind: 'preflight-tools',
      human: `Look for ${LLAMA_SERVER} on PATH; nothing is installed where it is there.`,
    },
    {
      kind: 'package-install',
      human: `Install the package ${request.name}, without asking anybody.`,
      command: [...privilege('sudo'), ...installation('pacman', request)],
    },
  ];
}

/**
 * Installs a package, unless there is a llama-server on PATH. That is done by pacman alone, whose packages are of one
 * kind everywhere; elsewhere a person does it.
 * @throws TaskchartError with what to do; the signal's reason
 */
export async function installPackage(
  request: PackageRequest,
  { tools, offline }: { tools: Toolbox; offline: boolean },
  signal: AbortSignal,
  tell: TellEngineProgress,
): Promise<PreparedEngine> {
  const { name, is_allowed } = request;
  const before = tools.find(LLAMA_SERVER);
  if (before !== undefined) return installedServer('package', before, tools, signal);
  if (!is_allowed)
    throw forbidden(
      `there is no ${LLAMA_SERVER} on PATH, and provisioning.allow_package_installs is false; install the package ${name}, or set it to true`,
    );
  if (offline) throw forbidden(`policy.offline forbids to install the package ${name}`);
  const pacman = tools.find('pacman');
  if (pacman === undefined)
    throw unobtainable(
      `there is no pacman on PATH, and packages are installed by no other program; install ${name} with the package manager of this system, or use provisioning.mode source`,
    );
  const sudo = tools.find('sudo');
  if (privilege('sudo').length > 0 && sudo === undefined)
    throw unobtainable(`package ${name} cannot be installed: this is not root, and there is no sudo on PATH`);
  tell({ phase: 'installing' });
  try {
    await runCommand([...privilege(sudo ?? 'sudo'), ...installation(pacman, request)], {
      env: tools.env,
      signal,
    });
  } catch (error) {
    if (error instanceof CommandError)
      throw unobtainable(`package ${name} could not be installed: ${error.message}`);
    throw error;
  }
  const program = tools.find(LLAMA_SERVER);
  if (program === undefined) throw unobtainable(`package ${name} is installed, and has no ${LLAMA_SERVER}`);
  return installedServer('package', program, tools, signal);
}

/** What nobody can answer is not asked: sudo fails at once where it would want a password. */
function privilege(sudo: string): string[] {
  return process.getuid?.() === 0 ? [] : [sudo, '-n'];
}

function installation(pacman: string, { name, version, repo }: PackageRequest): string[] {
  const what = `${repo === undefined ? '' : `${repo}/`}${name}${version === undefined ? '' : `=${version}`}`;
  return [pacman, '-S', '--noconfirm', '--needed', what];
}
