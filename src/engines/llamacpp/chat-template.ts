import {
  type ChatHistoryItem,
  JinjaTemplateChatWrapper,
  type LlamaModel,
  LlamaText,
  type Token,
  type Tokenizer,
} from 'node-llama-cpp';
import { TaskchartError } from '../../errors.ts';
import type { ChatMessage } from '../engine.ts';
import { unsupported } from '../outcome.ts';

/** The chat template that came with a model. */
export class ChatTemplate {
  readonly #wrapper: JinjaTemplateChatWrapper;
  readonly #tokenizer: Tokenizer;

  constructor(template: string, tokenizer: Tokenizer) {
    this.#wrapper = new JinjaTemplateChatWrapper({ template, tokenizer });
    this.#tokenizer = tokenizer;
  }

  /** @returns undefined where the model has no template, or none that can be read. */
  static of(model: LlamaModel): ChatTemplate | undefined {
    const template = model.fileInfo.metadata?.tokenizer?.chat_template;
    if (typeof template !== 'string' || template.trim() === '') return undefined;
    try {
      return new ChatTemplate(template, model.tokenizer);
    } catch {
      return undefined;
    }
  }

  /**
   * Tokens of a conversation up to where the assistant's next message begins, or goes on where the last one
   * is the assistant's. What people wrote is never read as special tokens.
   * @throws TaskchartError INVALID_PARAMS for messages that the template refuses, such as an unknown role.
   */
  tokenize(messages: readonly ChatMessage[], resumed: string): Token[] {
    const chatHistory = messages.map(toHistoryItem);
    if (chatHistory.at(-1)?.type !== 'model') chatHistory.push({ type: 'model', response: [] });
    return LlamaText([this.#render(chatHistory), resumed]).tokenize(this.#tokenizer);
  }

  #render(chatHistory: ChatHistoryItem[]): LlamaText {
    try {
      return this.#wrapper.generateContextState({ chatHistory }).contextText;
    } catch {
      throw new TaskchartError(unsupported('messages', "the model's chat template does not take these"));
    }
  }
}

function toHistoryItem(message: ChatMessage): ChatHistoryItem {
  switch (message.role) {
    case 'system':
      return { type: 'system', text: message.content };
    case 'user':
      return { type: 'user', text: message.content };
    case 'assistant':
      return { type: 'model', response: [message.content] };
    default:
      throw new TaskchartError(unsupported('messages', `the engine has no role "${message.role}"`));
  }
}
