// Markdown to a tree of blocks. Every leaf is a piece of the source and says where it stands in it
// (source.slice(at, at + text.length) === text), so that tokens can be tinted inside of rendered text.
// HTML is text here. Images are links. What is not markdown is text: nothing is ever refused.

import { displayAt } from "./formulas.js";
import { inline } from "./inline.js";
import { formula } from "./math.js";

const MAX_DEPTH = 12; // quotes and lists inside of each other; deeper ones are text
const FENCE = /^( {0,3})(`{3,}|~{3,})([^\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}>[ \t]?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** Lines {at, text, end} of source from offset `from` on; `end` is where the newline stands. */
export function linesOf(source, from = 0) {
  const lines = [];
  let at = from;
  for (const text of source.slice(from).split("\n")) {
    const end = at + text.length;
    lines.push({ at, text: text.endsWith("\r") ? text.slice(0, -1) : text, end });
    at = end + 1;
  }
  return lines;
}

/** Blocks of the source from offset `from` on, where a block must begin. Each has the offset `start`. */
export function parse(source, from = 0) {
  return blocks(linesOf(source, from), 0);
}

function blocks(lines, depth) {
  const found = [];
  let i = 0;
  while (i < lines.length) {
    if (lines[i].text.trim() === "") {
      i += 1;
      continue;
    }
    const start = lines[i].at;
    const [block, next] = block1(lines, i, depth);
    block.start = start;
    found.push(block);
    i = next;
  }
  return found;
}

/** The block that begins at line i, and the line behind it. */
function block1(lines, i, depth) {
  const { text } = lines[i];
  if (FENCE.test(text)) return fenced(lines, i);
  const display = displayAt(lines, i);
  if (display) return math(lines, i, display);
  if (HEADING.test(text)) return [heading(lines[i]), i + 1];
  if (RULE.test(text)) return [{ type: "rule" }, i + 1];
  if (depth < MAX_DEPTH && QUOTE.test(text)) return quote(lines, i, depth);
  if (depth < MAX_DEPTH && ITEM.test(text)) return list(lines, i, depth);
  if (isTable(lines, i)) return table(lines, i);
  return paragraph(lines, i, depth);
}

function fenced(lines, i) {
  const [, indent, fence, info] = FENCE.exec(lines[i].text);
  if (fence[0] === "`" && info.includes("`")) return paragraph(lines, i, MAX_DEPTH);
  const block = {
    type: "code",
    language: info.trim().split(/\s+/, 1)[0],
    indent: indent.length,
    closer: new RegExp(`^ {0,3}\\${fence[0]}{${fence.length},}[ \\t]*$`),
  };
  const found = codeLines(block, lines, i + 1);
  return [Object.assign(block, found), found.next];
}

/** Lines of code from line i on: {lines, open, resume, next}; `resume`: where the last line begins, which may grow. */
function codeLines({ indent, closer }, lines, i) {
  const found = [];
  let j = i;
  for (; j < lines.length && !closer.test(lines[j].text); j++) {
    found.push(cut(lines[j], Math.min(indent, /^ */.exec(lines[j].text)[0].length)));
  }
  return { lines: found, open: j >= lines.length, resume: lines.at(-1).at, next: j + 1 };
}

/**
 * What a source that grew adds to open code at its end: {lines, end}: from its last line on, and the offset behind
 * the code once that is closed, else null.
 */
export function moreOfFence(source, block) {
  const lines = linesOf(source, block.resume);
  const found = codeLines(block, lines, 0);
  // What looks like the end may still grow to something else while it is the last line.
  const closed = !found.open && found.next < lines.length;
  if (!closed && !found.open) found.lines.push(lines[found.next - 1]);
  block.resume = found.resume;
  return { lines: found.lines, end: closed ? lines[found.next].at : null };
}

function newline(line) {
  return { at: line.end, text: "\n" };
}

/** A formula on lines of its own; as long as its end has not come, and where it is unknown, its tree is null. */
function math(lines, i, { last, open, from, to }) {
  const inside = lines.slice(i, last + 1);
  const leaves = inside.flatMap((line, k) => [...(k ? [newline(inside[k - 1])] : []), { at: line.at, text: line.text }]);
  const source = leaves.map(({ text }) => text).join("");
  const lead = open ? 0 : offset(inside, from);
  const tree = open ? null : formula(source.slice(lead, offset(inside, to)));
  return [{ type: "math", tree, leaves }, last + 1];
}

/** Where the place `at` of the source stands in the joined text of lines. */
function offset(lines, at) {
  let sum = 0;
  for (const line of lines) {
    if (at <= line.at + line.text.length) return sum + at - line.at;
    sum += line.text.length + 1;
  }
  return sum;
}

function heading(line) {
  const [mark, hashes] = HEADING.exec(line.text);
  const text = line.text.slice(mark.length).replace(/[ \t]+#+[ \t]*$/, "");
  return { type: "heading", level: hashes.length, children: inline([{ at: line.at + mark.length, text }]) };
}

function quote(lines, i, depth) {
  const inside = [];
  let j = i;
  for (; j < lines.length; j++) {
    const mark = QUOTE.exec(lines[j].text)?.[0];
    if (mark === undefined && (lines[j].text.trim() === "" || startsBlock(lines, j, depth))) break;
    inside.push(cut(lines[j], mark?.length ?? 0));
  }
  return [{ type: "quote", blocks: blocks(inside, depth + 1) }, j];
}

function cut(line, n) {
  return { at: line.at + n, text: line.text.slice(n), end: line.end };
}

function list(lines, i, depth) {
  const first = ITEM.exec(lines[i].text)[2];
  const ordered = /\d/.test(first);
  const kind = first.at(-1);
  const items = [];
  let loose = false;
  let j = i;
  while (j < lines.length) {
    const mark = ITEM.exec(lines[j].text);
    if (!mark || mark[2].at(-1) !== kind || RULE.test(lines[j].text)) break;
    const [item, next, spaced] = listItem(lines, j, mark, depth);
    items.push(item);
    loose ||= spaced && next < lines.length && ITEM.test(lines[next].text);
    j = next;
  }
  return [{ type: "list", ordered, first: ordered ? parseInt(first, 10) : 1, loose, items }, j];
}

/** -> [item, the line behind it, whether a blank line stands before that]. */
function listItem(lines, i, mark, depth) {
  const spaces = mark[3].length > 4 ? 1 : mark[3].length;
  const width = mark[1].length + mark[2].length + Math.max(spaces, 1);
  const inside = [cut(lines[i], Math.min(width, lines[i].text.length))];
  let j = i + 1;
  let blank = 0;
  for (; j < lines.length; j++) {
    const { text } = lines[j];
    if (text.trim() === "") {
      blank += 1;
      inside.push(cut(lines[j], text.length));
      continue;
    }
    const indent = /^[ \t]*/.exec(text)[0].length;
    // Models indent by less than the standard asks for: two spaces are enough for what is inside.
    const enough = indent >= Math.min(width, 2);
    if (!enough && (blank || startsBlock(lines, j, depth))) break;
    inside.push(cut(lines[j], Math.min(indent, width)));
    blank = 0;
  }
  const task = /^\[([ xX])\][ \t]+/.exec(inside[0].text);
  if (task) inside[0] = cut(inside[0], task[0].length);
  const item = { blocks: blocks(inside, depth + 1), task: task ? task[1] !== " " : null };
  return [item, j, blank > 0];
}

/** Whether line j ends a paragraph by beginning something else. */
function startsBlock(lines, j, depth) {
  const { text } = lines[j];
  const nested = depth < MAX_DEPTH && (QUOTE.test(text) || ITEM.test(text));
  return nested || FENCE.test(text) || HEADING.test(text) || RULE.test(text) || displayAt(lines, j) !== null;
}

function isTable(lines, i) {
  if (i + 1 >= lines.length || !lines[i].text.includes("|")) return false;
  if (!TABLE_RULE.test(lines[i + 1].text) || !lines[i + 1].text.includes("-")) return false;
  return cells(lines[i]).length === cells(lines[i + 1]).length;
}

function table(lines, i) {
  const align = cells(lines[i + 1]).map(({ text }) => {
    const [left, right] = [text.startsWith(":"), text.endsWith(":")];
    return left && right ? "center" : right ? "right" : left ? "left" : null;
  });
  const row = (line) => {
    const found = cells(line).slice(0, align.length);
    return align.map((_, k) => (found[k] ? inline([found[k]]) : []));
  };
  const rows = [];
  let j = i + 2;
  while (j < lines.length && lines[j].text.includes("|") && lines[j].text.trim() !== "") {
    rows.push(row(lines[j]));
    j += 1;
  }
  return [{ type: "table", align, head: row(lines[i]), rows }, j];
}

/** Cells {at, text} of a table's line, trimmed. */
function cells(line) {
  const found = [];
  const { text } = line;
  let from = 0;
  const end = text.trimEnd().length;
  while (from < end && /[ \t]/.test(text[from])) from += 1;
  if (text[from] === "|") from += 1;
  for (let i = from; i <= end; i++) {
    if (text[i] === "\\") {
      i += 1;
      continue;
    }
    if (i < end && text[i] !== "|") continue;
    if (i < end || i > from) {
      const piece = text.slice(from, i);
      const lead = piece.length - piece.trimStart().length;
      found.push({ at: line.at + from + lead, text: piece.trim() });
    }
    from = i + 1;
  }
  return found;
}

function paragraph(lines, i, depth) {
  const inside = [];
  let j = i;
  for (; j < lines.length; j++) {
    const { text } = lines[j];
    if (text.trim() === "" || (j > i && (startsBlock(lines, j, depth) || isTable(lines, j)))) break;
    const lead = text.length - text.trimStart().length;
    inside.push(cut(lines[j], lead));
  }
  const last = inside.length - 1;
  inside[last] = { at: inside[last].at, text: inside[last].text.trimEnd() };
  return [{ type: "paragraph", children: inline(inside) }, j];
}
