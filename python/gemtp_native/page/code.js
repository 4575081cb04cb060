// Fenced code as an element that grows: lines that are complete stay, only the last one is made anew.

import { copyButton, h, iconButton } from "./dom.js";
import { highlighter } from "./highlight.js";
import { moreOfFence } from "./markdown.js";

const PART_OF_FENCE = /^ {0,3}(?:`+|~+)\s*$/;

export class CodeView {
  /** @param block {language, lines, open, …} of markdown.js */
  constructor(block, tokens) {
    Object.assign(this, { block, tokens, text: "", before: null });
    this.highlighter = highlighter(block.language);
    this.code = h("code");
    this.tail = h("span");
    this.pre = h("pre", { tabindex: 0, role: "group", "aria-label": `Code ${block.language}`.trim() }, this.code);
    const wrap = iconButton("wrap", "Wrap long lines", () => {
      wrap.setAttribute("aria-pressed", String(this.pre.classList.toggle("wrapped")));
    }, { "aria-pressed": "false" });
    this.element = h("div", { class: "code", dir: "ltr" },
      h("div", { class: "code-bar" }, h("span", {}, block.language.slice(0, 40) || "text"), wrap, copyButton(() => this.text, "Copy code")),
      this.pre);
    this.#take(block.lines, block.open);
  }

  /** Takes what came since; returns the offset behind the code once its end has come, else null. */
  update(source) {
    const { lines, end } = moreOfFence(source, this.block);
    this.#take(lines, end === null);
    return end;
  }

  /** The last line of code that is open may be a part of a line: it is shown without being kept. */
  #take(lines, open) {
    this.tail.remove();
    this.tail.replaceChildren();
    const complete = open ? lines.slice(0, -1) : lines;
    for (const line of complete) {
      this.#put(this.code, line, this.highlighter?.line(line.text));
      this.text += (this.before ? "\n" : "") + line.text;
      this.before = line;
    }
    const last = open ? lines.at(-1) : null;
    if (!last || PART_OF_FENCE.test(last.text)) return;
    this.#put(this.tail, last, this.highlighter?.glance(last.text));
    this.code.append(this.tail);
  }

  #put(parent, { at, text }, runs = [[null, text]]) {
    if (this.before) this.tokens.put(parent, this.before.end, "\n");
    let from = at;
    for (const [kind, piece] of runs) {
      if (piece === "") continue;
      const home = kind ? h("span", { class: `code-${kind}` }) : parent;
      this.tokens.put(home, from, piece);
      if (home !== parent) parent.append(home);
      from += piece.length;
    }
  }
}
