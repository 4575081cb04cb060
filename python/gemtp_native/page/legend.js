// What the tints mean, with counts.

import { h } from "./dom.js";
import { number } from "./figures.js";

const WORDS = {
  target: ["target", "the model itself chose them, one a round; nobody had guessed them"],
  drafter: ["drafted", "the small drafter guessed them and the target agreed"],
  lookup: ["look-up", "copied from earlier in the text as a guess, and the target agreed"],
  grammar: ["grammar", "the JSON schema or grammar left no other choice"],
};

/** @param counts of Trace.counts() */
export function legend(counts) {
  const list = h("ul", { class: "legend", "aria-label": "Sources of the tokens" });
  for (const [source, [word, meaning]] of Object.entries(WORDS)) {
    if (!counts[source] && source !== "target" && source !== "drafter") continue;
    const item = h("li", { title: meaning, "data-source": source, "data-count": counts[source] },
      swatch(source), `${word} `, h("b", {}, number(counts[source])));
    list.append(item);
    if (source === "drafter" && counts.drafter) item.append(depths(counts.steps));
  }
  return list;
}

/** How the drafter's tokens spread over the places of their rounds. */
function depths(steps) {
  const row = h("span", { class: "depths" });
  const shown = steps.slice(0, 4);
  if (steps.length > 4) shown.push(steps.slice(4).reduce((a, b) => a + b, 0));
  shown.forEach((count, i) => {
    const place = i === 4 && steps.length > 5 ? "5+" : String(i + 1);
    row.append(h("span", { class: "depth", title: `place ${place} of their round: ${count}` },
      swatch("drafter", i + 1, place), number(count)));
  });
  return row;
}

export function swatch(source, step = source === "drafter" ? 2 : 0, text = "ab") {
  return h("span", { class: `swatch token ${source}`, "data-step": step || null, "aria-hidden": "true" }, text);
}
