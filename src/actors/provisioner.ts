import { createActor, fromPromise } from 'xstate';
import { toFailure } from '../errors.ts';
import {
  provisionerMachine,
  type ModelProgress,
  type PreparedModel,
  type ProvisionerFact,
  type ResolvedModel,
} from '../machines/provisioner.ts';
import { link } from './supervision.ts';

/** Where models come from. Every step rejects with a TaskchartError that says what to do. */
export interface ModelSource {
  /** The one name of a model, however it was written. @throws TaskchartError INVALID_PARAMS: what is right */
  nameOf(model_ref: string): string;
  /** The path of a model that is on this machine already, without asking anybody else; '' where it has none. */
  locate(model_ref: string): Promise<string | undefined>;
  resolve(model_ref: string, signal: AbortSignal): Promise<ResolvedModel>;
  fetch(model: ResolvedModel, signal: AbortSignal, progress: TellProgress): Promise<ResolvedModel>;
  verify(model: ResolvedModel, signal: AbortSignal, progress: TellProgress): Promise<PreparedModel>;
}

/** Hears how far a model is, at most four times a second. */
export type TellProgress = (progress: ModelProgress) => void;

/**
 * Runs one provisioning to its end; `told` hears exactly one fact, `progress` nothing after that.
 * @returns how to cancel it
 */
export function startProvisioner(
  model_ref: string,
  source: ModelSource,
  told: (fact: ProvisionerFact) => void,
  progress: TellProgress = () => undefined,
): () => void {
  const during =
    (signal: AbortSignal): TellProgress =>
    (how) => {
      if (!signal.aborted) progress(how);
    };
  const actor = createActor(
    provisionerMachine.provide({
      actors: {
        resolveModel: fromPromise(({ input, signal }) => source.resolve(input.model_ref, signal)),
        fetchModel: fromPromise(({ input, signal }) => source.fetch(input.model, signal, during(signal))),
        verifyModel: fromPromise(({ input, signal }) => source.verify(input.model, signal, during(signal))),
      },
    }),
    { input: { model_ref } },
  );
  actor.on('*', told);
  link(actor, {
    completed() {},
    crashed: (error) => told({ type: 'model.failed', failure: toFailure(error) }),
  });
  actor.start();
  return () => actor.send({ type: 'provisioner.cancel' });
}
