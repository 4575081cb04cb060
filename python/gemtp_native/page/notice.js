// One sentence above the messages, with ways on.

import { byId, h } from "./dom.js";

let about = null;

/**
 * Shows a sentence and buttons [text, onclick]; each button takes the notice away first.
 * @param subject "server", or "conversation": the notice goes when another conversation is opened
 */
export function notice(subject, sentence, ...buttons) {
  about = subject;
  const bar = byId("notice");
  bar.replaceChildren(h("p", {}, sentence), ...buttons.map(([text, onclick]) => (
    h("button", { type: "button", class: "button", onclick: () => { clearNotice(subject); onclick?.(); } }, text))));
  bar.hidden = false;
}

/** Takes a notice about this subject away; one about another stays. */
export function clearNotice(subject) {
  if (about !== subject) return;
  about = null;
  byId("notice").hidden = true;
  byId("notice").replaceChildren();
}
