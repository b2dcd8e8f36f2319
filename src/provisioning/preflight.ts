import { globSync } from 'node:fs';
import { unobtainable } from '../models/failures.ts';
import { wantsCuda } from './cmake-flags.ts';
import type { LlamaBuild } from './llama-build.ts';
import type { Toolbox } from './toolbox.ts';

/** Host compilers that nvcc may like better than the machine's own, the best first. */
const OTHER_COMPILERS = ['g++-13', 'g++-12', 'g++-11', 'clang++-17', 'clang++-16', 'clang++-15', 'clang++'];

/** What says that nvcc does not get along with the host's compiler. */
const COMPILER_TROUBLE =
  /unsupported (GNU|gcc|clang|host compiler) version|host_config\.h|unsupported Microsoft Visual Studio|exception specification is incompatible|parameter packs not expanded|identifier "__(Float|float)32x4_t" is undefined|nvcc fatal.*host compiler|Host compiler targets unsupported/i;

/**
 * Looks for everything that the build needs, so that what is missing is told at once and not after minutes.
 * @returns more flags for cmake
 * @throws TaskchartError naming all that is missing
 */
export function preflight({ flags, generator }: LlamaBuild, tools: Toolbox): string[] {
  const missing = [
    ...(tools.find('git') === undefined ? ['git'] : []),
    ...(tools.find('cmake') === undefined ? ['cmake'] : []),
    ...(flags.has('CMAKE_CXX_COMPILER') || tools.find('c++', 'g++', 'clang++') !== undefined
      ? []
      : ['a C++ compiler (g++ or clang++)']),
    ...(makes(generator, tools) ? [] : ['make or ninja']),
  ];
  if (missing.length > 0)
    throw unobtainable(
      `llama.cpp cannot be built on this machine: ${listed(missing)} ${missing.length === 1 ? 'is' : 'are'} missing on PATH; ` +
        'install what is missing with the package manager of the system, or use provisioning.mode embedded or binary',
    );
  if (!wantsCuda(flags) || flags.has('CMAKE_CUDA_COMPILER')) return [];
  const nvcc = tools.find('nvcc') ?? tools.find(...toolkits());
  if (nvcc !== undefined) return [`-DCMAKE_CUDA_COMPILER=${nvcc}`];
  throw unobtainable(
    'llama.cpp cannot be built for CUDA on this machine: there is no nvcc on PATH, in /usr/local/cuda* or in /opt/cuda; ' +
      'install the CUDA toolkit, or build without GGML_CUDA=ON and without devices',
  );
}

/** @returns another host compiler, where the failure looks as if one could help */
export function otherCompiler(
  { flags }: LlamaBuild,
  lines: readonly string[],
  tools: Toolbox,
): string | undefined {
  if (!wantsCuda(flags) || flags.has('CMAKE_CUDA_HOST_COMPILER')) return undefined;
  return lines.some((line) => COMPILER_TROUBLE.test(line)) ? tools.find(...OTHER_COMPILERS) : undefined;
}

function makes(generator: string | undefined, tools: Toolbox): boolean {
  if (generator === 'Ninja') return tools.find('ninja', 'ninja-build') !== undefined;
  if (generator === undefined || generator === 'Unix Makefiles')
    return tools.find('make', 'gmake') !== undefined;
  return true;
}

function toolkits(): string[] {
  return [...globSync('/usr/local/cuda*/bin/nvcc').toSorted().toReversed(), '/opt/cuda/bin/nvcc'];
}

function listed(names: readonly string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
