// Keys and tints, explained.

import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { swatch } from "./legend.js";

export const KEYS = [
  ["Enter", "send; Shift + Enter for a new line"],
  ["Esc", "stop the answer"],
  ["↑ in an empty field", "edit your latest message"],
  ["/", "go to the message field"],
  ["Alt + N", "new chat"],
  ["Alt + T", "tints on or off"],
  ["Alt + R", "race the latest answer: with and without drafts"],
  ["Alt + A", "regenerate the latest answer"],
  ["Alt + C", "continue an answer that was cut off"],
  ["Alt + S", "settings"],
  ["← → in an answer", "go through its tokens (Tab reaches it)"],
  ["F2, Del in the list", "rename or delete a chat"],
  ["?", "this help"],
];

const MEANINGS = [
  ["target", 0, "The target, the model itself, chose it: each round gives one such token."],
  ["drafter", 1, "The drafter, a small model, guessed it and the target agreed. The stronger the tint, the farther it had guessed ahead."],
  ["lookup", 0, "Copied from earlier in the text as a guess, and the target agreed."],
  ["grammar", 0, "The JSON schema left no other choice, so it cost nothing."],
];

export function openHelp() {
  openDialog("Help", [
    h("h3", {}, "Tints"),
    h("p", {}, "A round verifies several guessed tokens in one pass of the model. The text is the same with and without guesses; only the clock differs. Tints and lines under the tokens show how each came:"),
    h("ul", { class: "meanings" }, MEANINGS.map(([source, step, meaning]) => h("li", {}, swatch(source, step || undefined, "word"), h("span", {}, meaning)))),
    h("h3", {}, "Keys"),
    h("dl", { class: "keys" }, KEYS.map(([keys, meaning]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, meaning)))),
  ], { name: "help" });
}
