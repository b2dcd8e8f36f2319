import type { EngineProgress } from '../machines/provisioner.ts';

export type { EngineProgress };

/** One step on the way to an engine that runs, as it can be shown before anything is done. */
export interface Step {
  kind:
    | 'preflight-tools'
    | 'git-clone'
    | 'git-checkout'
    | 'cmake-configure'
    | 'cmake-build'
    | 'image-pull'
    | 'binary-download'
    | 'binary-unpack'
    | 'package-install'
    | 'model-fetch'
    | 'run';
  /** What it does, in words. */
  human: string;
  /** The command that does it, where there is one. */
  command?: readonly string[];
}

/** An engine that is here: what a process of it is started from. */
export type PreparedEngine =
  | {
      mode: 'binary' | 'source' | 'package';
      /** Its path. */
      program: string;
      /** What it says of itself. */
      version: string;
    }
  | {
      mode: 'container';
      /** Path of what runs containers. */
      tool: string;
      kind: 'podman' | 'docker';
      /** The image by its digest where that is known, else by its tag. */
      image: string;
    };

/** Hears how far an engine is, at most a few times a second. */
export type TellEngineProgress = (progress: EngineProgress) => void;
