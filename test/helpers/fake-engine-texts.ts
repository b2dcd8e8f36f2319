/** What the fake engines make of texts: one token a word, vectors by letters, scores by common words. */

function countWords(text: string): number {
  return text.split(/\s+/u).filter((word) => word !== '').length;
}

/** The tokens of a text: one for each word, and one to begin with. */
export function countTokens(text: string): number {
  return countWords(text) + 1;
}

/** A conversation as the model sees it; the last word asks for an answer. */
export function rendered(messages: readonly { role: string; content: string }[], continued = false): string {
  const said = continued ? messages.slice(0, -1) : messages;
  const text = said.map(({ role, content }) => ` <${role}> ${content}`).join('');
  return `${text} <assistant>${continued ? (messages.at(-1)?.content ?? '') : ''}`;
}

/** A vector by the letters of the text. */
export function vectorOf(text: string): number[] {
  const bytes = [...Buffer.from(text)];
  return Array.from({ length: 8 }, (_, dimension) =>
    bytes.reduce((total, byte, i) => total + (((byte * (dimension + 3) + i) % 17) - 8), 0.5),
  );
}

/** How many words of the query the document has. */
export function scoreOf(query: string, document: string): number {
  const words = document.split(/\s+/u);
  return query.split(/\s+/u).filter((word) => words.includes(word)).length - 1.5;
}
