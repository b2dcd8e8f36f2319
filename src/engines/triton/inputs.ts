import { TaskchartError } from '../../errors.ts';
import type { EngineCall } from '../engine.ts';
import { resolveSampling } from '../llamacpp/sampling.ts';
import { loadError, unsupported } from '../outcome.ts';

/** Who stands behind the model: vLLM takes its settings as one JSON text, TensorRT-LLM as tensors of their own. */
export type Flavour = 'vllm' | 'trtllm';

/** Names that models have for the same thing, by what it is; the first that is declared is used. */
const NAMES = {
  max_tokens: ['max_tokens', 'sampling_param_max_tokens', 'request_output_len'],
  stream: ['stream', 'streaming'],
  temperature: ['temperature', 'sampling_param_temperature'],
  top_k: ['top_k', 'sampling_param_top_k', 'runtime_top_k'],
  top_p: ['top_p', 'sampling_param_top_p', 'runtime_top_p'],
  min_p: ['min_p', 'sampling_param_min_p'],
  repeat_penalty: ['repetition_penalty', 'sampling_param_repetition_penalty'],
  seed: ['seed', 'random_seed', 'sampling_param_seed'],
  stop: ['stop_words', 'sampling_param_stop', 'stop_words_list'],
} as const;

type Setting = keyof typeof NAMES;

/** What to return beside the text, where the model can. */
const REPORTS = ['return_finish_reason', 'return_num_input_tokens', 'return_num_output_tokens'];

/** The inputs that a deployed model declares, and how a call is put into them. */
export class TritonInputs {
  readonly flavour: Flavour;
  readonly #declared: ReadonlySet<string>;

  /** @throws TaskchartError where the model is not one that writes text, or does not stream it */
  constructor(model: string, declared: readonly string[]) {
    this.#declared = new Set(declared);
    this.flavour = this.#declared.has('sampling_parameters') ? 'vllm' : 'trtllm';
    const has = [...declared].sort().join(', ') || 'none';
    if (
      !this.#declared.has('text_input') ||
      (this.flavour === 'trtllm' && this.#name('max_tokens') === undefined)
    )
      throw loadError(`The model "${model}" is none of vLLM or TensorRT-LLM; its inputs are ${has}.`);
    if (this.#name('stream') === undefined)
      throw loadError(`The model "${model}" cannot stream; its inputs are ${has}.`);
  }

  /** Whether the model itself tells how a run ended; otherwise only the end of the body does. */
  get tellsReason(): boolean {
    return this.#declared.has('return_finish_reason');
  }

  /** The body of a `POST …/generate_stream`. @throws TaskchartError for what the model does not take */
  body(call: EngineCall): object {
    const prompt = call.input.kind === 'prompt' ? call.input.text : '';
    return {
      id: call.task_id,
      text_input: prompt + (call.resume?.text ?? ''),
      [this.#name('stream') ?? 'stream']: true,
      ...this.#flag('exclude_input_in_output'),
      ...Object.assign({}, ...REPORTS.map((name) => this.#flag(name))),
      ...(this.flavour === 'vllm' ? samplingParameters(call) : this.#tensors(call)),
    };
  }

  #tensors(call: EngineCall): object {
    const { temperature, top_k, top_p, min_p, repeat_penalty, stop } = resolveSampling(call.sampling);
    const greedy = temperature === 0;
    return {
      ...this.#required('max_tokens', call.max_tokens),
      // Greedy is the best one of one; a temperature of zero is refused by some versions.
      ...(greedy ? this.#required('top_k', 1) : this.#required('temperature', temperature)),
      ...(greedy || top_k === 0 ? {} : this.#required('top_k', top_k)),
      ...(greedy || top_p === 1 ? {} : this.#required('top_p', top_p)),
      ...(greedy || min_p === 0 ? {} : this.#required('min_p', min_p)),
      ...(repeat_penalty === 1 ? {} : this.#required('repeat_penalty', repeat_penalty)),
      ...(greedy ? this.#optional('seed', unsigned(call.seed)) : this.#required('seed', unsigned(call.seed))),
      // Found again in what comes: a model without such an input only goes on longer than it needs to.
      ...(stop.length > 0 ? this.#optional('stop', stop) : {}),
    };
  }

  #required(setting: Setting, value: unknown): object {
    const name = this.#name(setting);
    if (name === undefined) {
      const field = setting === 'max_tokens' || setting === 'seed' ? setting : `sampling.${setting}`;
      throw new TaskchartError(unsupported(field, 'the deployed model has no such input'));
    }
    return { [name]: value };
  }

  #optional(setting: Setting, value: unknown): object {
    const name = this.#name(setting);
    return name === undefined ? {} : { [name]: value };
  }

  #flag(name: string): object {
    return this.#declared.has(name) ? { [name]: true } : {};
  }

  #name(setting: Setting): string | undefined {
    return NAMES[setting].find((name) => this.#declared.has(name));
  }
}

/** Only names that every version knows: one that it does not know fails the run with a message about LoRA. */
function samplingParameters(call: EngineCall): object {
  const { temperature, top_k, top_p, min_p, repeat_penalty, stop } = resolveSampling(call.sampling);
  const parameters = {
    max_tokens: call.max_tokens,
    temperature,
    top_p,
    top_k: top_k > 0 ? top_k : -1,
    min_p,
    repetition_penalty: repeat_penalty,
    seed: Math.trunc(call.seed),
    ...(stop.length > 0 ? { stop } : {}),
  };
  return { sampling_parameters: JSON.stringify(parameters) };
}

function unsigned(seed: number): number {
  const whole = Math.trunc(seed);
  return whole < 0 ? Number.MAX_SAFE_INTEGER + whole : whole;
}
