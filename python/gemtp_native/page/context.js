// How much of the model's context a conversation has used.

import { h } from "./dom.js";
import { number } from "./figures.js";

const NEARLY = 0.85; // share from which the meter warns

/** Tokens of the messages `path` by what the server counted for the latest answer; null if it did not. */
export function usedTokens(path) {
  const usage = path.findLast((node) => node.usage)?.usage;
  const sum = (usage?.prompt_tokens ?? NaN) + (usage?.completion_tokens ?? NaN);
  return Number.isFinite(sum) ? sum : null;
}

/** Whether an answer ended because no token fits behind it. */
export function isFull(node, context) {
  const used = usedTokens([node]);
  return node.finish === "length" && Boolean(context) && used !== null && used >= context - 1;
}

/** A bar and a sentence for `used` of `context` tokens. */
export function meter(used, context) {
  const share = Math.min(used / context, 1);
  const text = `${number(used)} of ${number(context)} tokens`;
  const hint = share < NEARLY ? "" : " Nearly full: start a new chat, or start the server with a larger --context.";
  return h("span", { class: "context", title: `This chat uses ${text} of the model's context.${hint}` },
    h("meter", { min: 0, max: 1, low: 0.6, high: NEARLY, optimum: 0, value: share.toFixed(4), "aria-label": `Context used: ${text}` }),
    h("span", { "aria-hidden": "true" }, `${number(used)} / ${number(context)}`));
}
