// Where formulas stand in running text: \(…\), \[…\], $…$, $$…$$. What only looks like one stays text.

import { LONGEST_FORMULA } from "./math.js";
import { ENVIRONMENTS } from "./math_symbols.js";

const MOST_LINES = 200; // of a formula that stands on lines of its own
const LONGEST_DOLLARS = 1000; // units between single dollars
const SIGNS = /[\\^_=+<>|*/{}]/;
const BLOCK = /^ {0,3}(?:(\\\[)|(\$\$)|\\begin\{([a-z]+\*?)\})/;

/** Finds the formulas of one text; the text is asked from front to back. */
export class Formulas {
  constructor(text) {
    this.text = text;
    this.ends = new Map(); // delimiter -> the place where it was found last
  }

  /**
   * The formula that begins at i: {from, to, end, display}: its inside and what is behind it. Null if none does.
   * The text at i begins with "\\(", "\\[" or "$".
   */
  at(i) {
    const two = this.text.slice(i, i + 2);
    if (two === "\\(" || two === "\\[") return this.#bracketed(i, two);
    return two === "$$" ? this.#between(i, "$$", "$$", true) : this.#dollar(i);
  }

  /** Whether "\\(" or "\\[" at i has no end in this text. */
  isOpen(i) {
    const two = this.text.slice(i, i + 2);
    return (two === "\\(" && this.#next("\\)", i + 2) < 0) || (two === "\\[" && this.#next("\\]", i + 2) < 0);
  }

  #bracketed(i, opener) {
    const display = opener === "\\[";
    const found = this.#between(i, opener, display ? "\\]" : "\\)", display);
    if (!found) return null;
    const inside = this.text.slice(found.from, found.to);
    // Escaped brackets around words are Markdown's: \[sic\], \(see below\).
    if (!SIGNS.test(inside) && (display || /\p{Ll}{3,}/u.test(inside))) return null;
    return found;
  }

  #between(i, opener, closer, display) {
    const from = i + opener.length;
    const to = this.#next(closer, from);
    if (to < 0 || to - from > LONGEST_FORMULA || this.text.slice(from, to).trim() === "") return null;
    return { from, to, end: to + closer.length, display };
  }

  /** Where the closer stands next; each part of the text is searched once. */
  #next(closer, from) {
    const known = this.ends.get(closer);
    if (known !== undefined && (known < 0 || known >= from)) return known;
    let to = this.text.indexOf(closer, from);
    // A closer behind a backslash of its own ("\\\\)") is a line's end and a bracket.
    while (to > 0 && closer[0] === "\\" && isEscaped(this.text, to)) to = this.text.indexOf(closer, to + 2);
    this.ends.set(closer, to);
    return to;
  }

  /** Prices and variables of shells have dollars, too: "$5 and $6", "5$", "$HOME/$USER". */
  #dollar(i) {
    if (/[\p{L}\p{N}$]/u.test(this.text[i - 1] ?? "") || /[\s$]/.test(this.text[i + 1] ?? " ")) return null;
    const rest = this.text.slice(i + 1, i + 1 + LONGEST_DOLLARS);
    const found = /^(?:[^$\\\n]|\\[^\n])+/.exec(rest);
    const inside = found?.[0] ?? "";
    const behind = rest[inside.length + 1] ?? "";
    if (rest[inside.length] !== "$" || /\s$/.test(inside) || /[\p{L}\p{N}$]/u.test(behind)) return null;
    if (isMoney(inside)) return null;
    return { from: i + 1, to: i + 1 + inside.length, end: i + 2 + inside.length, display: false };
  }
}

/** Whether what stands between two dollars is about amounts: "5 and 6", "5,", "20/month or". */
function isMoney(inside) {
  if (/^[\d.,]*[.,;:]$/.test(inside)) return true;
  return /^[\d.,]/.test(inside) && !/[\\^_={]/.test(inside) && /\p{L}{2,}/u.test(inside);
}

function isEscaped(text, at) {
  let from = at;
  while (text[from - 1] === "\\") from -= 1;
  return (at - from) % 2 === 1;
}

/**
 * A formula on lines of its own that begins at line i: {last, open, from, to}: its last line, whether that is still to
 * come, and where its inside stands in the source; null if there is none. `lines`: {at, text, end} of markdown.js.
 */
export function displayAt(lines, i) {
  const found = BLOCK.exec(lines[i].text);
  if (!found || (found[3] && !ENVIRONMENTS.has(found[3]))) return null;
  const closer = found[1] ? "\\]" : found[2] ?? `\\end{${found[3]}}`;
  const begins = found[0].length;
  for (let j = i; j < lines.length && j < i + MOST_LINES; j++) {
    const { text, at } = lines[j];
    if (text.trim() === "") return null;
    const place = text.indexOf(closer, j === i ? begins : 0);
    if (place < 0) continue;
    if (text.slice(place + closer.length).trim() !== "") return null;
    const whole = found[3] !== undefined; // an environment is a formula with its \begin and \end
    return { last: j, open: false, from: lines[i].at + (whole ? found[0].indexOf("\\") : begins), to: at + place + (whole ? closer.length : 0) };
  }
  return lines.length - i < MOST_LINES ? { last: lines.length - 1, open: true } : null;
}
