// Messages as they are shown.

import { isFull } from "./context.js";
import { copyButton, h, iconButton } from "./dom.js";
import { many, summary } from "./figures.js";
import { inspect } from "./inspect.js";
import { legend } from "./legend.js";
import { MarkdownView, PlainView, Tokens } from "./render.js";
import { DEFAULTS } from "./request.js";
import { Trace } from "./trace.js";

const EMPTY = { stopped: "Stopped before the first token.", left: "Interrupted before the first token." };
// Why an answer is not whole, by how it ended.
const CUTS = {
  length: (node, context) => (isFull(node, context)
    ? `Cut off: the model’s context of ${many(context, "token")} is full. Start a new chat, or start the server with a larger --context.`
    : "Cut off at the maximum number of tokens."),
  stopped: () => "You stopped this answer.",
  left: () => "Interrupted: the page was closed during this answer.",
};

/** The arrows between branches, or nothing where there is one only. */
function branches(node, conversation, actions) {
  const all = conversation.siblings(node);
  if (all.length < 2) return null;
  const place = all.indexOf(node) + 1;
  const what = node.role === "user" ? "version" : "answer";
  return h("span", { class: "branches", role: "group", "aria-label": `${what} ${place} of ${all.length}` },
    iconButton("left", `Earlier ${what}`, () => actions.turn(node, -1), { disabled: place === 1 }),
    h("span", { "aria-hidden": "true" }, `${place}/${all.length}`),
    iconButton("right", `Later ${what}`, () => actions.turn(node, 1), { disabled: place === all.length }));
}

/** The system prompt of an imported chat, folded. */
export function systemMessage(text) {
  const body = h("div", { class: "body plain", dir: "auto" });
  new PlainView(body, new Tokens([])).update(text);
  return h("li", { class: "message system" }, h("details", { class: "thoughts" }, h("summary", {}, "System prompt"), body));
}

export function userMessage(node, conversation, actions) {
  const text = h("div", { class: "body plain", dir: "auto" });
  new PlainView(text, new Tokens([])).update(node.content);
  return h("li", { class: "message user", id: `message-${node.id}` },
    h("h2", { class: "unseen" }, "You"),
    text,
    h("div", { class: "actions" },
      branches(node, conversation, actions),
      iconButton("edit", "Edit this message", () => actions.edit(node)),
      copyButton(() => node.content, "Copy this message")));
}

/** A message as a field: resolves its new text to `done`. */
export function editor(node, { done, cancel }) {
  const field = h("textarea", { "aria-label": "Your message", rows: 3 });
  field.value = node.content;
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      done(field.value);
    }
  });
  return h("form", { class: "editor", onsubmit: (event) => { event.preventDefault(); done(field.value); } },
    field,
    h("div", { class: "row end" },
      h("button", { type: "button", class: "button", onclick: cancel }, "Cancel"),
      h("button", { type: "submit", class: "button strong" }, "Send")));
}

export class AnswerMessage {
  /** @param before in completion mode: the user's part of the text, which the answer goes on from. */
  constructor(node, conversation, actions, before = null) {
    Object.assign(this, { node, conversation, actions });
    this.trace = new Trace();
    this.lists = { content: new Tokens([]), reasoning: new Tokens([]) };
    this.plain = conversation.mode === "completion" || Boolean(node.options?.response_format);
    this.waiting = h("div", { class: "waiting" });
    this.thoughts = h("details", { class: "thoughts", hidden: true });
    this.body = h("div", { class: `body ${this.plain ? "plain" : "prose"}`, tabindex: 0, role: "group",
      "aria-label": "Answer. The arrow keys tell the source of each token." });
    this.below = h("div", { class: "below" });
    this.#build(before);
    inspect(this.body, () => ({ list: this.lists.content.list, trace: this.trace }));
  }

  #build(before) {
    const reasoning = h("div", { class: "body plain" });
    this.thoughtsTitle = h("summary", {}, "Thoughts");
    this.thoughts.append(this.thoughtsTitle, reasoning);
    this.thoughtsView = new PlainView(reasoning, this.lists.reasoning);
    let home = this.body;
    if (this.plain) {
      const given = h("span", { class: "given" });
      if (before) new PlainView(given, new Tokens([])).update(before.content);
      home = h("span", { class: "made" });
      this.body.append(given, home);
    }
    this.view = this.plain ? new PlainView(home, this.lists.content) : new MarkdownView(home, this.lists.content);
    this.before = before;
    this.element = h("li", { class: "message assistant", id: `message-${this.node.id}` },
      h("h2", { class: "unseen" }, "Model"), this.thoughts, this.body, this.waiting, this.below);
  }

  /** Shows an answer that is being made. Returns elements of blocks that were finished by this. */
  update(answer) {
    const first = !this.started;
    this.started = answer.started;
    this.trace = answer.trace;
    this.#wait(answer);
    if (first && !this.started) return [];
    for (const kind of ["content", "reasoning"]) {
      const list = this.lists[kind].list;
      // spelled() once a frame is linear; the list behind the views has to stay the same array.
      for (const token of answer.trace.spelled(kind).slice(list.length)) list.push(token);
    }
    this.#think(answer);
    return this.view.update(answer.content);
  }

  #wait({ prompt, answered, finish }) {
    if (answered || finish) {
      this.waiting.replaceChildren();
    } else if (prompt?.total) {
      const bar = h("progress", { max: prompt.total, value: prompt.done, "aria-label": "Reading the prompt" });
      const said = `Reading the prompt: ${prompt.done.toLocaleString("en")} of ${many(prompt.total, "token")}`;
      this.waiting.replaceChildren(bar, h("span", {}, said));
    } else if (!this.waiting.childElementCount) {
      this.waiting.append(h("span", { class: "pulse", "aria-hidden": "true" }), h("span", {}, "Waiting for the first token"));
    }
  }

  #think({ reasoning, trace }) {
    this.thoughts.hidden = reasoning === "";
    if (reasoning === "") return;
    const count = trace.tokens.filter(({ kind }) => kind === "reasoning").length;
    this.thoughtsTitle.textContent = count ? `Thoughts, ${many(count, "token")}` : "Thoughts";
    this.thoughtsView.update(reasoning);
  }

  /** Shows what is kept of an answer. */
  finish() {
    const { node } = this;
    const texts = { content: node.content, reasoning: node.reasoning ?? "" };
    this.trace = node.trace ? Trace.unpack(node.trace, texts) : new Trace();
    for (const kind of ["content", "reasoning"]) {
      this.lists[kind].list.splice(0, Infinity, ...this.trace.spelled(kind));
    }
    this.started = true;
    this.waiting.replaceChildren();
    this.#think({ reasoning: texts.reasoning, trace: this.trace });
    this.thoughtsView.finish(texts.reasoning);
    this.view.finish(node.content);
    if (node.content === "" && !node.trouble) {
      const made = this.body.querySelector(".made") ?? this.body;
      made.append(h("em", { class: "fine" }, EMPTY[node.finish] ?? "The model’s answer is empty."));
    }
    this.below.replaceChildren(...this.#below().filter(Boolean));
    return this;
  }

  #below() {
    const { node, trace, actions } = this;
    const parts = [];
    if (node.trouble) parts.push(this.#trouble());
    else if (this.actions.isLatest(node)) parts.push(this.#cut());
    if (trace.tokens.length) {
      parts.push(legend(trace.counts()));
      const figures = h("ul", { class: "figures", "aria-label": "Figures" });
      for (const [value, name, explanation] of summary(trace, node)) {
        figures.append(h("li", { title: explanation || null }, value && h("b", {}, value), value && " ", name));
      }
      parts.push(figures);
    }
    const complete = this.conversation.mode === "completion";
    parts.push(h("div", { class: "actions" },
      branches(node, this.conversation, actions),
      copyButton(() => (complete ? actions.textTo(node) : node.content), complete ? "Copy the text" : "Copy this answer"),
      complete && this.before ? iconButton("edit", "Edit your text", () => actions.edit(this.before)) : null,
      complete && this.before && branches(this.before, this.conversation, actions),
      iconButton("again", "Regenerate (Alt+A)", () => actions.again(node)),
      trace.tokens.length > 1
        ? iconButton("race", "Race: this answer with and without drafts, side by side (Alt+R)", () => actions.race(node), { text: "Race" })
        : null));
    return parts;
  }

  /** What says that an answer is not whole, and a way on. */
  #cut() {
    const { node, actions } = this;
    const sentence = CUTS[node.finish]?.(node, actions.app.props?.context);
    if (!sentence) return null;
    const full = isFull(node, actions.app.props?.context);
    return h("div", { class: "cut", role: "note" }, h("p", {}, sentence), full ? null : this.#more());
  }

  /** The button that goes on with an answer; JSON can only be made again, longer. */
  #more() {
    const { node, actions } = this;
    const button = (text, onclick, title = null) => h("button", { type: "button", class: "button", title, onclick }, text);
    if (node.options?.response_format) {
      const longer = 2 * (node.options.max_tokens ?? DEFAULTS.max_tokens);
      return button(`Regenerate with up to ${many(longer, "token")}`, () => actions.retry(node, { ...node.options, max_tokens: longer }));
    }
    if (node.content === "" && !(node.reasoning && node.thinking)) return button("Try again", () => actions.retry(node));
    return button("Continue", () => actions.proceed(node), "Continue this answer (Alt+C)");
  }

  #trouble() {
    const { node, actions } = this;
    const partial = node.content !== "" && actions.isLatest(node) && !node.options?.response_format;
    return h("div", { class: "trouble", role: "alert" },
      h("p", {}, node.trouble),
      h("button", { type: "button", class: "button", onclick: () => actions.retry(node) }, "Try again"),
      partial && h("button", { type: "button", class: "button", onclick: () => actions.proceed(node) }, "Continue"));
  }
}
