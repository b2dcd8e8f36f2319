/** Names that older versions had. */
const RENAMED: Readonly<Record<string, string>> = {
  LLAMA_CUBLAS: 'GGML_CUDA',
  LLAMA_CUDA: 'GGML_CUDA',
  LLAMA_METAL: 'GGML_METAL',
  LLAMA_VULKAN: 'GGML_VULKAN',
  LLAMA_NATIVE: 'GGML_NATIVE',
};

/** One program, and nothing that it would fetch while it is built. */
const ALWAYS: Readonly<Record<string, string>> = {
  CMAKE_BUILD_TYPE: 'Release',
  CMAKE_BUILD_RPATH_USE_ORIGIN: 'ON',
  BUILD_SHARED_LIBS: 'OFF',
  LLAMA_BUILD_SERVER: 'ON',
  LLAMA_BUILD_TESTS: 'OFF',
  LLAMA_BUILD_EXAMPLES: 'OFF',
  LLAMA_USE_PREBUILT_UI: 'OFF',
  LLAMA_OPENSSL: 'OFF',
  GGML_CCACHE: 'OFF',
};

const GPU_BACKENDS = ['GGML_CUDA', 'GGML_VULKAN', 'GGML_HIP', 'GGML_SYCL', 'GGML_METAL', 'GGML_MUSA'];

/** Flags of cmake by name, sorted, the user's before ours. */
export type CMakeFlags = ReadonlyMap<string, string>;

/**
 * @param written such as `-DGGML_CUDA=ON`
 * @param forGpu whether the engine is to have a GPU: CUDA, unless another backend is named
 */
export function cmakeFlags(
  written: readonly string[],
  extra: Readonly<Record<string, string>>,
  forGpu: boolean,
): CMakeFlags {
  const theirs = written.map((flag): [string, string] => {
    const [, name = '', value = ''] = /^-D([A-Za-z0-9_]+)(?::[A-Z]+)?=(.*)$/s.exec(flag) ?? [];
    return [RENAMED[name] ?? name, value];
  });
  const flags = new Map([...Object.entries(ALWAYS), ...Object.entries(extra), ...theirs]);
  if (forGpu && !GPU_BACKENDS.some((backend) => flags.has(backend))) flags.set('GGML_CUDA', 'ON');
  return new Map([...flags].toSorted(([a], [b]) => (a < b ? -1 : +(a > b))));
}

/** Whether the CUDA toolkit is needed. */
export function wantsCuda(flags: CMakeFlags): boolean {
  return /^(on|1|true|yes)$/i.test(flags.get('GGML_CUDA') ?? '');
}

export function written(flags: CMakeFlags): string[] {
  return Array.from(flags, ([name, value]) => `-D${name}=${value}`);
}
