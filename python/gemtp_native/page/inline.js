// What stands inside of a paragraph: emphasis, code, links, formulas. See markdown.js for the promise about leaves.

import { Formulas } from "./formulas.js";
import { formula } from "./math.js";

const LONGEST = 20000; // units of text that are looked at; a longer paragraph is plain text
const DEEPEST = 16; // emphasis inside of emphasis
const LONGEST_LINK = 2000;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const BARE_LINK = /^https?:\/\/[^\s<>"'`|\\^{}]+/;

/**
 * @param lines pieces {at, text} of the source, one a line; `end` of all but the last: where its newline stands
 * @returns nodes: {type: "text" | "code", leaves}, {type: "strong" | "em" | "del", children},
 *   {type: "link", href, children}, {type: "break"}, {type: "math", tree, display, leaves}
 */
export function inline(lines) {
  const text = lines.map((line) => line.text).join("\n");
  const place = new Places(lines);
  if (text.length > LONGEST) return [{ type: "text", leaves: place.leaves(0, text.length) }];
  return new Inline(text, place).parse();
}

/** Where offsets in the joined text stand in the source. */
class Places {
  constructor(lines) {
    this.lines = lines;
    this.starts = [];
    let start = 0;
    for (const line of lines) {
      this.starts.push(start);
      start += line.text.length + 1;
    }
  }

  /** Leaves {at, text} of the joined text from `from` to `to`: one a line, and one for each end of line. */
  leaves(from, to) {
    const found = [];
    for (let k = this.#lineOf(from); k < this.lines.length && this.starts[k] < to; k++) {
      const { at, text, end } = this.lines[k];
      const start = this.starts[k];
      const [low, high] = [Math.max(from - start, 0), Math.min(to - start, text.length)];
      if (low < high) found.push({ at: at + low, text: text.slice(low, high) });
      if (to - start > text.length && k + 1 < this.lines.length) {
        found.push({ at: end, text: "\n" });
      }
    }
    return found;
  }

  #lineOf(offset) {
    let [low, high] = [0, this.starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

class Inline {
  constructor(text, place) {
    this.text = text;
    this.place = place;
    this.nodes = []; // found so far; delimiter runs among them are {type: "run", ...}
    this.brackets = []; // indices in nodes of "[" that may begin a link
    this.plain = 0; // where text that belongs to no node yet begins
    this.i = 0;
    this.unclosed = new Set(); // lengths of backtick runs that have no end
    this.formulas = new Formulas(text);
  }

  parse() {
    while (this.i < this.text.length) this.#step();
    this.#flush(this.i);
    return settle(emphasis(this.nodes, 0), this.place);
  }

  #step() {
    const c = this.text[this.i];
    if (c === "\\") return this.#escape();
    if (c === "`") return this.#code();
    if (c === "$") return this.#formula() ?? this.#pass();
    if (c === "*" || c === "_" || c === "~") return this.#run(c);
    if (c === "[" || (c === "!" && this.text[this.i + 1] === "[")) return this.#open();
    if (c === "]") return this.#close();
    if (c === "<") return this.#angle();
    if (c === "h" && !/[\p{L}\p{N}]/u.test(this.text[this.i - 1] ?? "")) return this.#bare();
    if (c === "\n") return this.#lineEnd();
    this.i += 1;
    return undefined;
  }

  #pass() {
    this.i += 1;
  }

  /** A formula, or its text as it is written where it cannot be shown. True if there is one here. */
  #formula() {
    const found = this.formulas.at(this.i);
    if (!found) return null;
    const tree = formula(this.text.slice(found.from, found.to));
    const node = tree ? { type: "math", tree, display: found.display } : { type: "text" };
    this.#put({ ...node, from: this.i, to: found.end }, found.end);
    return true;
  }

  /** Text up to `to` becomes a node. */
  #flush(to) {
    if (to > this.plain) this.nodes.push({ type: "text", from: this.plain, to });
    this.plain = to;
  }

  /** A node in place of the text up to `to`. */
  #put(node, to) {
    this.#flush(this.i);
    this.nodes.push(node);
    this.i = this.plain = to;
  }

  #escape() {
    const next = this.text[this.i + 1];
    if ((next === "(" || next === "[") && this.#formula()) return;
    if (this.formulas.isOpen(this.i)) {
      this.i += 2; // its end has not come: the backslash stays
      return;
    }
    if (next === "\n") {
      this.#put({ type: "break" }, this.i + 2);
    } else if (next !== undefined && /[!-/:-@[-`{-~]/.test(next)) {
      this.#flush(this.i);
      this.plain = this.i + 1; // the backslash is not shown
      this.i += 2;
    } else {
      this.i += 1;
    }
  }

  #lineEnd() {
    let from = this.i;
    while (from > this.plain && this.text[from - 1] === " ") from -= 1;
    if (this.i - from < 2) {
      this.i += 1;
      return;
    }
    const end = this.i + 1;
    this.i = from;
    this.#put({ type: "break" }, end);
  }

  #code() {
    const start = this.#runEnd(this.i);
    const length = start - this.i;
    if (!this.unclosed.has(length)) {
      let end;
      for (let j = this.text.indexOf("`", start); j >= 0; j = this.text.indexOf("`", end)) {
        end = this.#runEnd(j);
        if (end - j !== length) continue;
        let [from, to] = [start, j];
        const padded = this.text[from] === " " && this.text[to - 1] === " ";
        if (padded && this.text.slice(from, to).trim() !== "") [from, to] = [from + 1, to - 1];
        this.#put({ type: "code", from, to }, end);
        return;
      }
      this.unclosed.add(length);
    }
    this.i = start;
  }

  /** Behind the characters equal to the one at i. */
  #runEnd(i) {
    let end = i;
    while (this.text[end] === this.text[i] && end < this.text.length) end += 1;
    return end;
  }

  #run(c) {
    const end = this.#runEnd(this.i);
    const before = this.text[this.i - 1] ?? "\n";
    const after = this.text[end] ?? "\n";
    const left = !isSpace(after) && (!isMark(after) || isSpace(before) || isMark(before));
    const right = !isSpace(before) && (!isMark(before) || isSpace(after) || isMark(after));
    const inWord = c === "_";
    const node = {
      type: "run",
      c,
      from: this.i,
      to: end,
      opens: left && (!inWord || !right || isMark(before)),
      closes: right && (!inWord || !left || isMark(after)),
    };
    if (c === "~" && end - this.i !== 2) node.opens = node.closes = false;
    this.#put(node, end);
  }

  #open() {
    const length = this.text[this.i] === "!" ? 2 : 1;
    this.#put({ type: "text", from: this.i, to: this.i + length }, this.i + length);
    this.brackets.push(this.nodes.length - 1);
  }

  #close() {
    const opener = this.brackets.pop();
    const match = opener === undefined ? null : this.#target(this.i + 1);
    if (!match) {
      this.i += 1;
      return;
    }
    this.#flush(this.i);
    const children = emphasis(this.nodes.splice(opener + 1), 1);
    this.nodes.pop();
    this.nodes.push({ type: "link", href: safeLink(match.href), children, depth: 1 });
    this.brackets.length = 0; // no link inside of a link
    this.i = this.plain = match.end;
  }

  /** The target in parentheses behind a "]". */
  #target(i) {
    if (this.text[i] !== "(") return null;
    const rest = this.text.slice(i, i + LONGEST_LINK);
    const found = /^\(\s*(?:<([^<>\n]*)>|([^\s()]*(?:\([^\s()]*\)[^\s()]*)*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(rest);
    return found && { href: found[1] ?? found[2], end: i + found[0].length };
  }

  #angle() {
    const found = /^<((?:https?:\/\/|mailto:)[^\s<>]*)>/.exec(this.text.slice(this.i, this.i + LONGEST_LINK));
    if (!found) {
      this.i += 1;
      return;
    }
    this.#link(found[1], this.i + 1, this.i + found[0].length);
  }

  #bare() {
    let href = BARE_LINK.exec(this.text.slice(this.i, this.i + LONGEST_LINK))?.[0];
    href = href?.replace(/[.,:;!?*_~]+$/, "");
    while (href?.endsWith(")") && href.split(")").length > href.split("(").length) href = href.slice(0, -1);
    if (!href || href.length < 10) {
      this.i += 1;
      return;
    }
    this.#link(href, this.i, this.i + href.length);
  }

  #link(href, from, end) {
    const children = [{ type: "text", from, to: from + href.length }];
    this.#put({ type: "link", href: safeLink(href), children, depth: 1 }, end);
  }
}

/** The address, if following it is harmless; else null. */
export function safeLink(href) {
  try {
    const url = new URL(href);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function isSpace(c) {
  return /\s/.test(c);
}

function isMark(c) {
  return PUNCTUATION.test(c);
}

/** Pairs the delimiter runs among nodes: from inside to outside, each closer with the nearest opener. */
function emphasis(nodes, depth) {
  const out = [];
  const openers = []; // indices in out of runs that may still open
  for (const node of nodes) {
    if (node.type !== "run") {
      out.push(node);
      continue;
    }
    let run = { ...node };
    while (run.closes && run.to > run.from) {
      const k = findOpener(out, openers, run);
      if (k < 0) break;
      run = wrap(out, openers, k, run, depth);
    }
    if (run.to > run.from) {
      out.push(run);
      if (run.opens) openers.push(out.length - 1);
    }
  }
  return out;
}

function findOpener(out, openers, run) {
  // Few openers are looked at: a text full of stars must not cost the square of its length.
  for (let k = openers.length - 1; k >= Math.max(openers.length - 32, 0); k--) {
    const opener = out[openers[k]];
    if (opener.c !== run.c) continue;
    const sum = opener.to - opener.from + run.to - run.from;
    const odd = (opener.closes || run.opens) && sum % 3 === 0 && (run.to - run.from) % 3 !== 0;
    if (!odd) return k;
  }
  return -1;
}

/** What stands between opener k and the closing run becomes a node; returns what is left of the run. */
function wrap(out, openers, k, run, depth) {
  const index = openers[k];
  const opener = out[index];
  const double = opener.to - opener.from >= 2 && run.to - run.from >= 2;
  const width = double ? 2 : 1;
  const children = out.splice(index + 1);
  openers.length = k + 1;
  const inner = Math.max(depth, ...children.map((child) => child.depth ?? 0)) + 1;
  const type = run.c === "~" ? "del" : double ? "strong" : "em";
  out[index] = { ...opener, to: opener.to - width };
  if (inner > DEEPEST) {
    out[index] = opener;
    out.push(...children);
    openers.length = k;
    return { ...run, closes: false };
  }
  const node = { type, children, depth: inner };
  if (out[index].to === out[index].from) {
    out[index] = node;
    openers.length = k;
  } else {
    out.push(node);
  }
  return { ...run, from: run.from + width };
}

/** Ranges become leaves; runs that were no delimiters become text. */
function settle(nodes, place) {
  return nodes.map((node) => {
    if (node.children) return { type: node.type, href: node.href, children: settle(node.children, place) };
    if (node.type === "break") return node;
    if (node.type === "math") return { type: "math", tree: node.tree, display: node.display, leaves: place.leaves(node.from, node.to) };
    return { type: node.type === "code" ? "code" : "text", leaves: place.leaves(node.from, node.to) };
  });
}
