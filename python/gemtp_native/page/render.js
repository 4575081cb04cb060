// Trees of markdown.js and plain text as elements, with a span for every token.

import { parse } from "./markdown.js";
import { copyButton, h, iconButton } from "./dom.js";

// Characters that would move or hide what stands around them: shown by name instead.
// (Controls but tab and newline; marks of direction; what is unassigned on purpose.)
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/;

/** Text of which tokens {at, text, ...} are known; makes spans of it. */
export class Tokens {
  /** @param list tokens in order of `at`; may grow. */
  constructor(list) {
    this.list = list;
  }

  /** Appends text that stands at offset `at` of the source, one span for each token. */
  put(parent, at, text) {
    const end = at + text.length;
    let from = at;
    for (let k = this.#first(at); from < end && k < this.list.length; k++) {
      const token = this.list[k];
      if (token.at >= end) break;
      const to = Math.min(token.at + token.text.length, end);
      if (token.at > from) plain(parent, text.slice(from - at, token.at - at));
      from = Math.max(from, token.at);
      if (to <= from) continue;
      const span = h("span", { class: `token ${token.source}`, "data-token": k });
      if (token.step) span.setAttribute("data-step", Math.min(token.step, 5));
      plain(span, text.slice(from - at, to - at));
      parent.append(span);
      from = to;
    }
    if (from < end) plain(parent, text.slice(from - at));
  }

  /** The first token that ends behind `at`. */
  #first(at) {
    let [low, high] = [0, this.list.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.list[middle].at + this.list[middle].text.length > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function plain(parent, text) {
  let rest = text;
  for (let found = CONTROLS.exec(rest); found; found = CONTROLS.exec(rest)) {
    if (found.index) parent.append(rest.slice(0, found.index));
    const code = found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    parent.append(h("span", { class: "control", title: `the character U+${code}` }, `U+${code}`));
    rest = rest.slice(found.index + 1);
  }
  if (rest) parent.append(rest);
}

/** Text as it is, growing. */
export class PlainView {
  constructor(root, tokens) {
    this.root = root;
    this.tokens = tokens;
    this.shown = 0;
  }

  update(source) {
    this.tokens.put(this.root, this.shown, source.slice(this.shown));
    this.shown = source.length;
    return [];
  }

  finish(source) {
    this.root.replaceChildren();
    this.shown = 0;
    this.update(source);
  }
}

/** Markdown, growing: what is behind the beginning of the last block is made anew each time. */
export class MarkdownView {
  constructor(root, tokens) {
    this.root = root;
    this.tokens = tokens;
    this.last = 0; // where the last block begins
    this.blocks = []; // elements
  }

  /** Returns the elements of blocks that were finished by this. */
  update(source) {
    const from = this.last;
    const parsed = parse(source, from);
    this.blocks.pop()?.remove();
    const made = parsed.map((block) => this.#block(block));
    this.root.append(...made);
    this.blocks.push(...made);
    if (parsed.length) this.last = lineStart(source, parsed.at(-1).start);
    return made.slice(0, -1);
  }

  /** All of it anew: what came later may have joined blocks that stood apart. */
  finish(source) {
    this.root.replaceChildren();
    this.blocks = [];
    this.last = 0;
    this.update(source);
  }

  #block(block) {
    switch (block.type) {
      case "heading":
        // The page's own headings come above: h3 to h6.
        return directed(this.#inline(h(`h${Math.min(block.level + 2, 6)}`), block.children));
      case "rule":
        return h("hr");
      case "code":
        return this.#code(block);
      case "quote":
        return h("blockquote", {}, block.blocks.map((inside) => this.#block(inside)));
      case "list":
        return this.#list(block);
      case "table":
        return this.#table(block);
      default:
        return directed(this.#inline(h("p"), block.children));
    }
  }

  #code({ language, leaves }) {
    const code = h("code");
    for (const { at, text } of leaves) this.tokens.put(code, at, text);
    const pre = h("pre", { tabindex: 0, role: "group", "aria-label": `Code ${language}`.trim() }, code);
    const text = leaves.map((leaf) => leaf.text).join("");
    const wrap = iconButton("wrap", "Wrap long lines", () => pre.classList.toggle("wrapped"));
    const bar = h("div", { class: "code-bar" }, h("span", {}, language.slice(0, 40) || "text"), wrap,
      copyButton(() => text, "Copy code"));
    return h("div", { class: "code", dir: "ltr" }, bar, pre);
  }

  #list({ ordered, first, loose, items }) {
    const list = h(ordered ? "ol" : "ul", { start: ordered && first !== 1 && first });
    for (const { blocks, task } of items) {
      const item = h("li", { class: task === null ? null : "task" });
      if (task !== null) item.append(h("span", { class: "box" }, task ? "☑ " : "☐ "));
      for (const block of blocks) {
        const tight = !loose && block.type === "paragraph";
        item.append(tight ? this.#inline(h("div"), block.children) : this.#block(block));
      }
      list.append(item);
    }
    return directed(list);
  }

  #table({ align, head, rows }) {
    const row = (tag, cells) => h("tr", {}, cells.map((cell, k) => (
      directed(this.#inline(h(tag, { class: align[k] && `to-${align[k]}` }), cell)))));
    const table = h("table", {}, h("thead", {}, row("th", head)), h("tbody", {}, rows.map((r) => row("td", r))));
    return h("div", { class: "table", tabindex: 0, role: "group", "aria-label": "Table" }, table);
  }

  #inline(parent, nodes) {
    for (const node of nodes) {
      if (node.type === "break") {
        parent.append(h("br"));
      } else if (node.leaves) {
        const home = node.type === "code" ? h("code") : parent;
        for (const { at, text } of node.leaves) this.tokens.put(home, at, text);
        if (home !== parent) parent.append(home);
      } else {
        const link = node.type === "link";
        const safe = link && node.href;
        const tag = safe ? "a" : link ? "span" : node.type;
        const address = safe ? { href: node.href, title: node.href, target: "_blank", rel: "noopener noreferrer nofollow" } : {};
        parent.append(this.#inline(h(tag, address), node.children));
      }
    }
    return parent;
  }
}

/**
 * Written in the direction of its own first letter. Only when it is filled: with dir="auto" Chromium takes
 * time that grows with all that is there for each child that is added.
 */
function directed(element) {
  element.setAttribute("dir", "auto");
  return element;
}

function lineStart(source, at) {
  return source.lastIndexOf("\n", at - 1) + 1;
}
