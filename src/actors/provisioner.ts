import { createActor, fromPromise } from 'xstate';
import { toFailure } from '../errors.ts';
import {
  provisionerMachine,
  type EngineProgress,
  type ModelProgress,
  type PreparedModel,
  type ProvisionerFact,
  type ResolvedModel,
} from '../machines/provisioner.ts';
import { link } from './supervision.ts';

/** Where a pool's model, and its engine, come from. Every step rejects with a TaskchartError that says what to do. */
export interface ModelSource {
  /** The one name of a model, however it was written. @throws TaskchartError INVALID_PARAMS: what is right */
  nameOf(model_ref: string): string;
  /** Builds the pool's engine or fetches it, unless it is here; left out where it needs nothing. */
  ensureEngine?(signal: AbortSignal, progress: (progress: EngineProgress) => void): Promise<void>;
  /** The path of a model that is on this machine already, without asking anybody else; '' where it has none. */
  locate(model_ref: string): Promise<string | undefined>;
  resolve(model_ref: string, signal: AbortSignal): Promise<ResolvedModel>;
  fetch(model: ResolvedModel, signal: AbortSignal, progress: TellProgress): Promise<ResolvedModel>;
  verify(model: ResolvedModel, signal: AbortSignal, progress: TellProgress): Promise<PreparedModel>;
}

/** Hears how far a model is, at most four times a second. */
export type TellProgress = (progress: ModelProgress) => void;

/** Progress under its name. */
export type ProvisioningProgress =
  ({ type: 'model.progress' } & ModelProgress) | ({ type: 'engine.progress' } & EngineProgress);

/**
 * Runs one provisioning to its end; `told` hears exactly one fact, `progress` nothing after that.
 * @returns how to cancel it
 */
export function startProvisioner(
  model_ref: string,
  source: ModelSource,
  told: (fact: ProvisionerFact) => void,
  progress: (progress: ProvisioningProgress) => void = () => undefined,
): () => void {
  const during =
    (signal: AbortSignal): TellProgress =>
    (how) => {
      if (!signal.aborted) progress({ type: 'model.progress', ...how });
    };
  const actor = createActor(
    provisionerMachine.provide({
      actors: {
        ensureEngine: fromPromise(async ({ signal }) =>
          source.ensureEngine?.(signal, (how) => {
            if (!signal.aborted) progress({ type: 'engine.progress', ...how });
          }),
        ),
        resolveModel: fromPromise(({ input, signal }) => source.resolve(input.model_ref, signal)),
        fetchModel: fromPromise(({ input, signal }) => source.fetch(input.model, signal, during(signal))),
        verifyModel: fromPromise(({ input, signal }) => source.verify(input.model, signal, during(signal))),
      },
    }),
    { input: { model_ref, needs_engine: source.ensureEngine !== undefined } },
  );
  actor.on('*', told);
  link(actor, {
    completed() {},
    crashed: (error) => told({ type: 'model.failed', failure: toFailure(error) }),
  });
  actor.start();
  return () => actor.send({ type: 'provisioner.cancel' });
}
