// What an empty conversation shows.

import { byId, h } from "./dom.js";
import { number } from "./figures.js";
import { swatch } from "./legend.js";

const CHAT = ["Explain speculative decoding to a ten-year-old", "A table of the planets with their diameters", "Write a haiku about patience", "Find the bug: for i in range(len(a)): a.pop(i)"];
const COMPLETION = ["def fibonacci(n):", "class Stack:\n    def __init__(self):", "import json\n\ndef load(path):", "def is_prime(n):\n    "];

/** @param use is called with the text of an example */
export function showWelcome(props, use) {
  const chat = props.chat !== false;
  const examples = (chat ? CHAT : COMPLETION).map((text) => (
    h("li", {}, h("button", { type: "button", class: chat ? "example" : "example code-field", onclick: () => use(text) }, text))));
  const facts = [
    props.drafter ? "drafts with its drafter" : "has no drafter: drafts come from look-ups in the text",
    props.context && `context of ${number(props.context)} tokens`,
    props.threads && `${number(props.threads)} thread${props.threads === 1 ? "" : "s"}`,
    props.isa,
  ].filter(Boolean);
  byId("welcome").replaceChildren(
    h("h2", {}, chat ? "What shall it be?" : "Begin a text"),
    h("p", {}, chat
      ? "Ask something, and watch how the answer comes about."
      : "This model has no chat template: it goes on with the text that you begin."),
    h("ul", { class: "examples" }, examples),
    h("p", { class: "fine" }, `${props.model ?? "The model"}: ${facts.join(" · ")}`),
    h("p", { class: "fine tint-key" }, "Tokens come from the ", swatch("target", 0, "model itself"), " or were guessed and confirmed: ",
      swatch("drafter", 2, "drafted"), " ", swatch("lookup", 0, "look-up"), " ", swatch("grammar", 0, "grammar")),
  );
}
