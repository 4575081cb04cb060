// Code to runs of text with a kind, line after line, so that code can grow while it is written.

import { LANGUAGES } from "./languages.js";

const LONGEST_LINE = 2000; // units; longer lines have no colours
export const KINDS = ["comment", "string", "number", "keyword", "literal", "type", "function", "key", "meta", "added", "removed"];

const compiled = new Map(); // language -> its pattern

/** Reads one piece of code from its first line on; null for a language that is not known. */
export function highlighter(name) {
  const language = LANGUAGES.get(name.toLowerCase());
  return language ? new Highlighter(language) : null;
}

class Highlighter {
  constructor(language) {
    this.language = language;
    this.open = null; // what goes on over the end of the line: {end: RegExp, kind}
  }

  /** The runs [kind or null, text] of the next line; together they are the line. */
  line(text) {
    const { language } = this;
    if (text.length > LONGEST_LINE) return [[null, text]];
    if (language.lines) return [[language.lines.find(([, pattern]) => pattern.test(text))?.[0] ?? null, text]];
    const runs = new Runs(text);
    let i = this.open ? this.#close(runs, 0) : 0;
    const pattern = patternOf(language);
    while (i < text.length) {
      pattern.lastIndex = i;
      const found = pattern.exec(text);
      if (!found) break;
      const end = found.index + found[0].length;
      const opener = language.multi?.findIndex((_, k) => found.groups[`multi${k}`] !== undefined) ?? -1;
      if (opener >= 0) {
        const [, closer, kind] = language.multi[opener];
        this.open = { end: new RegExp(`\\\\.|${closer}`, "g"), kind };
        i = this.#close(runs, end, found.index);
      } else {
        runs.put(kindOf(found.groups, found[0], language, text[end]), found.index, end);
        i = Math.max(end, i + 1);
      }
    }
    return runs.end();
  }

  /** The runs of a line that may still grow: the next call is about the same line. */
  glance(text) {
    const { open } = this;
    const runs = this.line(text);
    this.open = open;
    return runs;
  }

  /** Takes what is open up to its end, or all of the line; returns the place behind it. */
  #close(runs, i, from = i) {
    const { end, kind } = this.open;
    end.lastIndex = i;
    for (let found = end.exec(runs.text); found; found = end.exec(runs.text)) {
      if (found[0][0] === "\\" && kind === "string") continue;
      if (found[0][0] === "\\") {
        end.lastIndex = found.index + 1;
        continue;
      }
      this.open = null;
      runs.put(kind, from, found.index + found[0].length);
      return found.index + found[0].length;
    }
    runs.put(kind, from, runs.text.length);
    return runs.text.length;
  }
}

/** Runs of one line, plain text between them. */
class Runs {
  constructor(text) {
    Object.assign(this, { text, found: [], done: 0 });
  }

  put(kind, from, to) {
    if (kind === null || to <= from) return;
    if (from > this.done) this.found.push([null, this.text.slice(this.done, from)]);
    this.found.push([kind, this.text.slice(from, to)]);
    this.done = to;
  }

  end() {
    if (this.done < this.text.length || !this.found.length) this.found.push([null, this.text.slice(this.done)]);
    return this.found;
  }
}

/** All that a language's lines are made of, as one pattern; the first alternative that fits counts. */
function patternOf(language) {
  if (compiled.has(language)) return compiled.get(language);
  const parts = [
    ...(language.extra ?? []).map(([, source], k) => `(?<extra${k}>${source})`),
    ...(language.multi ?? []).map(([source], k) => `(?<multi${k}>${source})`),
    language.comment && `(?<comment>${language.comment})`,
    language.string && `(?<string>${language.string})`,
    language.number && `(?<number>${language.number})`,
    "(?<word>[\\p{L}_$~][\\p{L}\\p{N}_$]*)",
  ];
  const pattern = new RegExp(parts.filter(Boolean).join("|"), "gu");
  compiled.set(language, pattern);
  return pattern;
}

function kindOf(groups, text, language, behind) {
  if (groups.word === undefined) {
    for (const kind of ["comment", "string", "number"]) if (groups[kind] !== undefined) return kind;
    return language.extra.find((_, k) => groups[`extra${k}`] !== undefined)[0];
  }
  const word = language.ignoreCase ? text.toLowerCase() : text;
  if (language.keywords?.has(word)) return "keyword";
  if (language.literals?.has(word)) return "literal";
  if (language.types?.has(word)) return "type";
  return behind === "(" && !language.isProse ? "function" : null;
}
