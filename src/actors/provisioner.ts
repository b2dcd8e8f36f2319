import { createActor, fromPromise } from 'xstate';
import { toFailure } from '../errors.ts';
import {
  provisionerMachine,
  type PreparedModel,
  type ProvisionerFact,
  type ResolvedModel,
} from '../machines/provisioner.ts';
import { link } from './supervision.ts';

/** Where models come from. Every step rejects with a TaskchartError that says what to do. */
export interface ModelSource {
  resolve(model_ref: string, signal: AbortSignal): Promise<ResolvedModel>;
  fetch(model: ResolvedModel, signal: AbortSignal): Promise<ResolvedModel>;
  verify(model: ResolvedModel, signal: AbortSignal): Promise<PreparedModel>;
}

/**
 * Runs one provisioning to its end; `told` hears exactly one fact.
 * @returns how to cancel it
 */
export function startProvisioner(
  model_ref: string,
  source: ModelSource,
  told: (fact: ProvisionerFact) => void,
): () => void {
  const actor = createActor(
    provisionerMachine.provide({
      actors: {
        resolveModel: fromPromise(({ input, signal }) => source.resolve(input.model_ref, signal)),
        fetchModel: fromPromise(({ input, signal }) => source.fetch(input.model, signal)),
        verifyModel: fromPromise(({ input, signal }) => source.verify(input.model, signal)),
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
