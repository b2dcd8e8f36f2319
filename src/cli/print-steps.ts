import type { Step } from '../provisioning/step.ts';

/** One line a step: what it does, and below it the command, as one could type it. */
export function printSteps(steps: readonly Step[]): void {
  for (const { kind, human, command } of steps) {
    process.stdout.write(`  ${kind.padEnd(16)}${human}\n`);
    if (command) process.stdout.write(`  ${''.padEnd(16)}$ ${command.map(quoted).join(' ')}\n`);
  }
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
