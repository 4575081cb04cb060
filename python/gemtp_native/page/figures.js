// Figures in words, and small drawings of them.

import { svg } from "./dom.js";

/** 1234.5 -> "1,234"; 12.34 -> "12.3"; 0.123 -> "0.12" */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 1 ? 1 : 2;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function percent(share) {
  return share === null ? "–" : `${Math.round(share * 100)}%`;
}

export function seconds(value) {
  return value < 0.9995 ? `${Math.round(value * 1000)} ms` : `${number(value)} s`;
}

export function many(count, one, more = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : more}`;
}

const ENDS = {
  stop: "complete",
  length: "cut off",
  stopped: "stopped by you",
  left: "interrupted",
  cancelled: "stopped",
  lost: "connection lost",
  error: "ended with an error",
  tool_calls: "calls a tool",
};

/** The line under an answer: [[value, what it is, explanation], ...]. */
export function summary(trace, { timings, usage, stats, finish }) {
  const rows = [];
  const tokens = timings?.predicted_n ?? (trace.tokens.length || usage?.completion_tokens || 0);
  rows.push([number(tokens), tokens === 1 ? "token" : "tokens", "of the answer"]);
  const rate = timings?.predicted_per_second ?? trace.rate();
  if (rate) rows.push([number(rate), "tokens/s", "after the first token"]);
  const rounds = stats?.rounds ?? trace.rounds.length - trace.lead;
  if (rounds) {
    rows.push([number(rounds), rounds === 1 ? "round" : "rounds", "passes of the target: each verifies the drafts made for it"]);
    rows.push([number(tokens / rounds), "tokens a round", "1 without drafting"]);
  }
  const accepted = timings?.draft_n ? timings.draft_n_accepted / timings.draft_n : trace.acceptance();
  if (accepted !== null) rows.push([percent(accepted), "of drafts accepted", "by the target, of those that were proposed"]);
  if (timings?.prompt_n !== undefined) {
    const read = `prompt tokens in ${seconds(timings.prompt_ms / 1000)}`;
    const kept = timings.cache_n ? `, ${number(timings.cache_n)} kept` : "";
    rows.push([number(timings.prompt_n), read + kept, "read for this answer; kept: known from an earlier request"]);
  }
  if (finish) rows.push(["", ENDS[finish] ?? finish, ""]);
  return rows;
}

const BARS = 48;

/** The latest rounds as bars, as high as the tokens they gave; the first token of each is the target's. */
export function sparkline(trace) {
  const last = trace.rounds.slice(-BARS);
  const top = Math.max(4, ...last.map((round) => round.tokens));
  const drawing = svg("svg", {
    class: "sparkline",
    viewBox: `0 0 ${BARS * 3} 24`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `Tokens of the last ${last.length} rounds: ${last.map((r) => r.tokens).join(", ")}`,
  });
  last.forEach((round, i) => {
    const height = (24 * round.tokens) / top;
    const own = (24 * Math.min(1, round.tokens)) / top;
    drawing.append(
      svg("rect", { class: "drafts", x: (BARS - last.length + i) * 3, y: 24 - height, width: 2, height: Math.max(height - own, 0) }),
      svg("rect", { class: "own", x: (BARS - last.length + i) * 3, y: 24 - own, width: 2, height: own }),
    );
  });
  return drawing;
}
