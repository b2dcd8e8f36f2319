/** GPT-2's printable stand-in for each byte: itself where it prints, else the next free one from U+0100. */
export const BYTE_CHARS: readonly string[] = byteChars();

function byteChars(): string[] {
  let spare = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const prints =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
    return String.fromCharCode(prints ? byte : spare++);
  });
}
