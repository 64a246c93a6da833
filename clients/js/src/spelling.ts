/** How words from outside are shown: in ASCII, so that they forge no line of a log. */

const SHORT: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

/** A text in quotes and in ASCII, as Python's `ascii()` spells it. */
export function ascii(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[^ -~]|[\\'"]/gu, (char) => {
    if (Object.hasOwn(SHORT, char)) return SHORT[char] ?? "";
    if (char === "'" || char === '"') return char === quote ? `\\${char}` : char;
    const hex = (char.codePointAt(0) ?? 0).toString(16);
    if (hex.length <= 2) return `\\x${hex.padStart(2, "0")}`;
    return hex.length <= 4
      ? `\\u${hex.padStart(4, "0")}`
      : `\\U${hex.padStart(8, "0")}`;
  });
  return quote + escaped + quote;
}

/** A value of a claim or of a copy, short and in ASCII. */
export function shown(value: string | number | null | undefined): string {
  if (value === undefined || value === null) return "nothing";
  return typeof value === "number" ? String(value) : ascii(value).slice(0, 80);
}
