import type { EngineLoss } from '../engine.ts';

/** How a server's process ended, and what it said before. */
export interface ProcessEnd {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Whether the kernel has killed something for want of memory while the process lived. */
  oom_seen: boolean;
  /** Its last lines, oldest first. */
  lines: readonly string[];
}

const VRAM_OOM =
  /cuda(Malloc|MallocManaged|MallocHost)? failed: out of memory|CUDA error: out of memory|CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|failed to allocate (CUDA|HIP|Vulkan|ROCm)\w* buffer|hip\w* failed: out of memory|ErrorOutOfDeviceMemory/i;
const CUDA_ERROR = /CUDA error|CUDA_ERROR_|CUBLAS_STATUS_(?!SUCCESS)|ROCm error|cudaError/i;
const TROUBLE =
  /\b(error|errors|fail|failed|failure|cannot|can't|could not|couldn't|unable|invalid|unknown|unrecognized|abort|aborted|exception|out of memory|no such file)\b/i;

/** Codes of a shell, or of a container's client, for a process that SIGKILL and SIGSEGV ended. */
const KILLED = 137;

/** Why a process that nobody asked to stop is gone. */
export function lossOf({ code, signal, oom_seen, lines }: ProcessEnd): EngineLoss {
  const how = signal === null ? `exited with code ${code}` : `was ended by ${signal}`;
  const cause = causeOf({ code, signal, oom_seen, lines });
  const why = { oom: ', out of memory', vram_oom: ', out of device memory', cuda: ', device fault' }[
    cause as string
  ];
  const line = cause === 'vram_oom' ? lines.find((text) => VRAM_OOM.test(text)) : lastMeaningful(lines);
  return {
    cause,
    message: `The engine process ${how}${why ?? ''}${line === undefined ? '' : `: ${line}`}`,
    ...(code === null ? {} : { exit_code: code }),
    ...(signal === null ? {} : { signal }),
  };
}

function causeOf({ code, signal, oom_seen, lines }: ProcessEnd): EngineLoss['cause'] {
  if (code === 0) return 'exit';
  if (lines.some((line) => VRAM_OOM.test(line))) return 'vram_oom';
  if (lines.some((line) => CUDA_ERROR.test(line))) return 'cuda';
  return oom_seen && (signal === 'SIGKILL' || code === KILLED) ? 'oom' : 'crash';
}

/** The last line that tells of trouble, or else the last one. */
export function lastMeaningful(lines: readonly string[]): string | undefined {
  const line = lines.findLast((text) => TROUBLE.test(text)) ?? lines.at(-1);
  // A server begins its lines with a clock and a level, which say nothing in a message.
  return line?.replace(/^[\d.:]+ [A-Z] /, '').slice(0, 400);
}
