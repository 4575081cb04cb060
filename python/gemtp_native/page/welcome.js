// What an empty conversation shows.

import { byId, h } from "./dom.js";
import { number } from "./figures.js";
import { swatch } from "./legend.js";

const CHAT = ["Explain speculative decoding to a ten-year-old", "A table of the planets with their diameters", "Write a haiku about patience", "Find the bug: for i in range(len(a)): a.pop(i)"];
const COMPLETION = ["def fibonacci(n):", "class Stack:\n    def __init__(self):", "import json\n\ndef load(path):", "def is_prime(n):"];

/**
 * @param mode "chat" or "completion"
 * @param use is called with the text of an example
 * @param choose is called with the other mode
 */
export function showWelcome(props, mode, { use, choose }) {
  const chat = mode === "chat";
  const examples = (chat ? CHAT : COMPLETION).map((text) => (
    h("li", {}, h("button", { type: "button", class: chat ? "example" : "example code-field", onclick: () => use(text) }, text))));
  const facts = [
    props.drafter ? "with a drafter" : "without a drafter: drafts are looked up in the text",
    props.context && `context of ${number(props.context)} tokens`,
    props.threads && `${number(props.threads)} thread${props.threads === 1 ? "" : "s"}`,
    props.isa,
  ].filter(Boolean);
  byId("welcome").replaceChildren(
    h("h2", {}, chat ? "Start a new chat" : "Complete a text"),
    modes(mode, choose),
    h("p", {}, chat
      ? "Ask anything, and watch where the tokens of the answer come from."
      : `${props.chat === false ? "This model has no chat template of its own. It" : "The model"} continues the text that you write.`),
    h("ul", { class: "examples" }, examples),
    h("p", { class: "fine" }, `${props.model ?? "The model"}: ${facts.join(" · ")}`),
    h("p", { class: "fine tint-key" }, "Tokens come from the ", swatch("target", 0, "model itself"), " or were guessed and confirmed: ",
      swatch("drafter", 2, "drafted"), " ", swatch("lookup", 0, "look-up"), " ", swatch("grammar", 0, "grammar")),
  );
}

function modes(mode, choose) {
  const button = (name, text) => h("button", {
    type: "button", class: "button", "aria-pressed": String(mode === name), onclick: () => choose(name),
  }, text);
  return h("div", { class: "modes", role: "group", "aria-label": "Mode" },
    button("chat", "Chat"), button("completion", "Complete a text"));
}
