/** A mistake in the configuration. The message is one line: where it is, which key, what would be right. */
export class ConfigError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ConfigError';
  }
}

/** Keys and list places that lead to a setting. */
export type KeyPath = readonly (string | number)[];
