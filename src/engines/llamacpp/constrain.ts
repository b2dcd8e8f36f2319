import { type Llama, type LlamaGrammar, LlamaGrammarEvaluationState, type LlamaModel } from 'node-llama-cpp';
import { TaskchartError, failure } from '../../errors.ts';
import type { EngineCall, OutputConstraint } from '../engine.ts';
import { unsupported } from '../outcome.ts';
import { constraintRefusal } from '../output-constraint.ts';
import { grammarSchema } from './json-schema.ts';

/**
 * What keeps a run to its grammar or schema; a new one for each run.
 * @throws TaskchartError INVALID_PARAMS where it cannot be read, or is too deep to be.
 */
export async function constrain(
  llama: Llama,
  model: LlamaModel,
  call: EngineCall,
): Promise<LlamaGrammarEvaluationState | undefined> {
  const { output } = call;
  if (output === undefined) return undefined;
  if (call.resume !== undefined)
    throw new TaskchartError(unsupported(output.kind, 'a constrained run cannot resume'));
  const refusal = constraintRefusal(output);
  if (refusal !== undefined) throw new TaskchartError(refusal);
  try {
    return new LlamaGrammarEvaluationState({ model, grammar: await grammarOf(llama, output) });
  } catch (error) {
    if (error instanceof TaskchartError) throw error;
    throw new TaskchartError(failure('INVALID_PARAMS', `\`${output.kind}\` was not accepted by the engine.`));
  }
}

/** The library's wish for four newlines after the JSON, by which it knows the end; ours is the end of the grammar. */
const TAIL = / "\\n\\n\\n\\n" \[\\n\]\*$/mu;

async function grammarOf(llama: Llama, output: OutputConstraint): Promise<LlamaGrammar> {
  if (output.kind === 'grammar') return llama.createGrammar({ grammar: output.gbnf });
  const { grammar } = await llama.createGrammarForJsonSchema(grammarSchema(output.schema) as never);
  return llama.createGrammar({ grammar: grammar.replace(TAIL, '') });
}
