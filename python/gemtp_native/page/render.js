// Trees of markdown.js and plain text as elements, with a span for every token.

import { parse } from "./markdown.js";
import { CodeView } from "./code.js";
import { h, mathml } from "./dom.js";
import { breakable } from "./math_tree.js";

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

/** Markdown, growing: what is behind the beginning of the last block is made anew each time, but open code grows. */
export class MarkdownView {
  constructor(root, tokens) {
    this.root = root;
    this.tokens = tokens;
    this.#reset();
  }

  #reset() {
    this.root.replaceChildren();
    this.last = 0; // where the last block begins
    this.tail = null; // its element
    this.code = null; // its CodeView, where it is code without an end
  }

  /** Returns the elements of blocks that were finished by this. */
  update(source) {
    const finished = [];
    if (this.code) {
      const end = this.code.update(source);
      if (end === null) return [];
      finished.push(this.code.element);
      this.last = end;
    } else {
      this.tail?.remove();
    }
    const parsed = parse(source, this.last);
    this.code = null;
    const made = parsed.map((block) => this.#block(block, true));
    this.root.append(...made);
    this.tail = made.at(-1) ?? null;
    if (parsed.length) this.last = lineStart(source, parsed.at(-1).start);
    return [...finished, ...made.slice(0, -1)];
  }

  /** All of it anew: what came later may have joined blocks that stood apart. */
  finish(source) {
    this.#reset();
    this.update(source);
  }

  #block(block, isTop = false) {
    switch (block.type) {
      case "heading":
        // The page's own headings come above: h3 to h6.
        return directed(this.#inline(h(`h${Math.min(block.level + 2, 6)}`), block.children));
      case "rule":
        return h("hr");
      case "code":
        return this.#code(block, isTop);
      case "quote":
        return h("blockquote", {}, block.blocks.map((inside) => this.#block(inside)));
      case "list":
        return this.#list(block);
      case "table":
        return this.#table(block);
      case "math":
        return this.#math(block);
      default:
        return directed(this.#inline(h("p"), block.children));
    }
  }

  #code(block, isTop) {
    const view = new CodeView(block, this.tokens);
    if (isTop && block.open && block.lines.length) this.code = view;
    return view.element;
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

  /** A formula on lines of its own; without a tree, as it is written. */
  #math({ tree, leaves }) {
    if (!tree) {
      const text = h("p", { class: "unset" });
      for (const { at, text: piece } of leaves) this.tokens.put(text, at, piece);
      return directed(text);
    }
    return h("div", { class: "formula", tabindex: 0, role: "group", "aria-label": "Formula", dir: "ltr" },
      math(tree, true, leaves));
  }

  #inline(parent, nodes) {
    for (const node of nodes) {
      if (node.type === "break") {
        parent.append(h("br"));
      } else if (node.type === "math") {
        if (node.display) parent.append(this.#math(node));
        else breakable(node.tree).forEach((piece) => parent.append(math(piece, false, node.leaves), h("wbr")));
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

/** The <math> of a tree; what was written is its alternative text. */
function math(tree, display, leaves) {
  const source = leaves.map(({ text }) => text).join("");
  return mathml({ tag: "math", children: [tree], attributes: { display: display ? "block" : "inline", dir: "ltr", alttext: source } });
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
