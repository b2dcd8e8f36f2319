import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type CMakeFlags, cmakeFlags, wantsCuda, written } from './cmake-flags.ts';
import type { Bundle } from './bundle.ts';
import type { Step } from './step.ts';
import type { Toolbox } from './toolbox.ts';

/** What to build; as a pool's `provisioning.source` says it. */
export interface BuildRequest {
  /** @default the bundle */
  repo?: string;
  ref?: string;
  submodules: boolean;
  build: { cmake_flags: readonly string[]; generator?: string; cache_dir: string };
  /** Whether the engine is to have a GPU. */
  for_gpu: boolean;
}

/** The machine that builds, as far as it makes a difference. */
export interface Machine {
  platform: string;
  arch: string;
  /** A build is for this processor, unless GGML_NATIVE is off. */
  cpu: string;
  /** Compilers at the same time. */
  jobs: number;
}

/** A build that is decided in every detail. */
export interface LlamaBuild {
  /** What tells it from any other: the version and the flags, as a digest. */
  id: string;
  /** Folder of its own. */
  folder: string;
  /** The program, once it is built. */
  program: string;
  source: { from: string; ref?: string; version: string; submodules: boolean };
  flags: CMakeFlags;
  generator: string | undefined;
  jobs: number;
}

/** Pure: the same request on the same machine is the same build, in this process and in the next. */
export function decideBuild(
  request: BuildRequest,
  machine: Machine,
  bundle: Bundle,
  tools: Toolbox,
): LlamaBuild {
  const { repo, ref, submodules, build, for_gpu } = request;
  // A squashed bundle has no history to count commits in.
  const flags = cmakeFlags(build.cmake_flags, repo === undefined ? { LLAMA_BUILD_NUMBER: '1' } : {}, for_gpu);
  const isNative = !/^(off|0|false|no)$/i.test(flags.get('GGML_NATIVE') ?? 'ON');
  const version = ref ?? bundle.version;
  const identity = [
    repo ?? 'bundle',
    version,
    submodules,
    ...written(flags),
    machine.platform,
    machine.arch,
    isNative ? machine.cpu : '',
  ];
  const id = createHash('sha256').update(JSON.stringify(identity)).digest('hex').slice(0, 16);
  const folder = join(build.cache_dir, 'llamacpp', id);
  return {
    id,
    folder,
    program: join(folder, 'bin', 'llama-server'),
    source: { from: repo ?? bundle.path, ...(ref === undefined ? {} : { ref }), version, submodules },
    flags,
    generator: build.generator ?? (tools.find('ninja') === undefined ? undefined : 'Ninja'),
    jobs: machine.jobs,
  };
}

/** What is done, in this order, each in the folder `work` of the build. */
export function buildSteps({ source, flags, generator, jobs }: LlamaBuild): Step[] {
  const isRemote = /^https?:/.test(source.from);
  return [
    {
      kind: 'preflight-tools',
      human: `Look for git, cmake and a C++ compiler${wantsCuda(flags) ? ', and for the CUDA toolkit' : ''}.`,
    },
    {
      kind: 'git-clone',
      human: `Clone llama.cpp ${source.version}.`,
      command: [
        'git',
        'clone',
        '--quiet',
        ...(isRemote ? ['--filter=blob:none'] : []),
        ...(source.ref === undefined ? [] : ['--no-checkout']),
        '--',
        source.from,
        'src',
      ],
    },
    ...(source.ref === undefined
      ? []
      : [
          {
            kind: 'git-checkout' as const,
            human: `Check out ${source.ref}.`,
            command: ['git', '-C', 'src', 'checkout', '--quiet', source.ref],
          },
        ]),
    ...(source.submodules
      ? [
          {
            kind: 'git-checkout' as const,
            human: 'Check out the submodules.',
            command: ['git', '-C', 'src', 'submodule', 'update', '--quiet', '--init', '--recursive'],
          },
        ]
      : []),
    {
      kind: 'cmake-configure',
      human: 'Configure the build.',
      command: [
        'cmake',
        '-S',
        'src',
        '-B',
        'build',
        ...(generator === undefined ? [] : ['-G', generator]),
        ...written(flags),
      ],
    },
    {
      kind: 'cmake-build',
      human: 'Build llama-server.',
      command: ['cmake', '--build', 'build', '--target', 'llama-server', '--parallel', String(jobs)],
    },
  ];
}
