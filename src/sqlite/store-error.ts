/**
 * Why a file on disk cannot be used. `in_use`: another taskchart has it open. `newer`: a later version of taskchart has
 * written it. `foreign`: it is not what it should be, and it was left as it is. `unusable`: the system or the database
 * says no. The message is one line that names the file.
 */
export type StoreErrorCode = 'in_use' | 'newer' | 'foreign' | 'unusable';

export class StoreError extends Error {
  readonly code: StoreErrorCode;

  constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'StoreError';
    this.code = code;
  }
}

/** What an error says, on one line. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replaceAll(/\s+/g, ' ');
}
