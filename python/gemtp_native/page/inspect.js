// Shows how a token came: by pointer, or by keyboard with the arrows inside of an answer.

import { byId, h, say } from "./dom.js";

const NAMES = {
  target: "chosen by the target itself",
  drafter: "drafted",
  lookup: "looked up in the text",
  grammar: "forced by the grammar",
};

export function describe(token, { rounds, lead }) {
  const round = rounds[token.round - 1];
  const place = token.step ? `, place ${token.step} of its drafts` : "";
  if (token.round === lead) return [NAMES[token.source], "right after the prompt"];
  const gave = `gave ${round.tokens} ${round.tokens === 1 ? "token" : "tokens"}`;
  return [`${NAMES[token.source]}${place}`, `round ${token.round - lead} of ${rounds.length - lead} (${gave})`];
}

/** Watches the tokens inside of `root`; `of()` gives {list, trace}. */
export function inspect(root, of) {
  let marked = null;
  const mark = (span, loud) => {
    marked?.classList.remove("marked");
    marked = span;
    if (!span || document.documentElement.dataset.tints === "off") {
      byId("tip").hidden = true;
      return;
    }
    const { list, trace } = of();
    const token = list[Number(span.dataset.token)];
    if (!token) return;
    span.classList.add("marked");
    const lines = describe(token, trace);
    showTip(span, token, lines);
    if (loud) say(`${JSON.stringify(token.text)}: ${lines.join("; ")}`);
  };
  root.addEventListener("pointerover", (event) => mark(event.target.closest(".token"), false));
  root.addEventListener("pointerleave", () => mark(null));
  root.addEventListener("blur", () => mark(null));
  root.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.target !== root || by === undefined) return;
    // A token that ends a line, or has several colours as code, stands in several spans.
    const all = [...root.querySelectorAll(".token")];
    const spans = all.filter((span, k) => span.dataset.token !== all[k - 1]?.dataset.token);
    if (!spans.length) return;
    event.preventDefault();
    const now = marked ? spans.findIndex((span) => span.dataset.token === marked.dataset.token) : by > 0 ? -1 : spans.length;
    mark(spans[Math.min(Math.max(now + by, 0), spans.length - 1)], true);
    marked?.scrollIntoView({ block: "nearest" });
  });
}

function showTip(span, token, lines) {
  const tip = byId("tip");
  tip.replaceChildren(
    h("code", {}, visible(token.text)),
    ...lines.map((line, i) => h("span", { class: i ? "" : `tip-source ${token.source}` }, line)),
  );
  tip.hidden = false;
  const box = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(box.left, 8), innerWidth - width - 8);
  const top = box.top - height - 8 > 0 ? box.top - height - 8 : box.bottom + 8;
  tip.style.setProperty("left", `${left}px`);
  tip.style.setProperty("top", `${top}px`);
}

function visible(text) {
  const shown = text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  const safe = shown.replace(/[\p{Cc}\p{Cf}]/gu, "·");
  return safe.length > 40 ? `${safe.slice(0, 39)}…` : safe;
}
