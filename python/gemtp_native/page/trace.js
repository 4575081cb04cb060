// How the tokens of an answer came: what is tinted, counted and replayed.

export const SOURCES = ["target", "drafter", "lookup", "grammar"];

/**
 * Tokens of one answer in order. A token is {text, source, step, round, kind, at}: `step` is its place among
 * its round's drafts (0: the target's own), `at` its offset in the text of its kind (UTF-16 units).
 * A round is {t, tokens, drafted}: seconds since the request's computation began, tokens that it gave,
 * tokens that it had proposed (null where the server does not say).
 */
export class Trace {
  /** @param texts that stand before the first token, of which nothing is known */
  constructor({ content = "", reasoning = "" } = {}) {
    this.tokens = [];
    this.rounds = [];
    this.before = [content.length, reasoning.length];
    this.lengths = { content: content.length, reasoning: reasoning.length };
  }

  /** Takes the `gemtp` member of a streamed chunk that carries tokens. */
  add(chunk) {
    const round = this.rounds.length + 1;
    for (const { text = "", source = "target", step = 0, kind = "content" } of chunk.tokens) {
      const at = this.lengths[kind] ?? 0;
      if (kind in this.lengths) this.lengths[kind] += text.length;
      const known = SOURCES.includes(source) ? source : "target";
      this.tokens.push({ text, source: known, step, round, kind, at });
    }
    this.rounds.push({ t: chunk.t ?? 0, tokens: chunk.tokens.length, drafted: chunk.drafted ?? null });
  }

  /** Tokens of one kind that have text, in order of `at`. */
  spelled(kind) {
    return this.tokens.filter((token) => token.kind === kind && token.text !== "");
  }

  /** {target: n, drafter: n, lookup: n, grammar: n, steps: [n at depth 1, 2, ...]} (steps: of the drafter). */
  counts() {
    const counts = { target: 0, drafter: 0, lookup: 0, grammar: 0, steps: [] };
    for (const { source, step } of this.tokens) {
      counts[source] += 1;
      if (source === "drafter") {
        while (counts.steps.length < step) counts.steps.push(0);
        counts.steps[Math.max(step, 1) - 1] = (counts.steps[Math.max(step, 1) - 1] ?? 0) + 1;
      }
    }
    return counts;
  }

  /** 1 if the first round is the prompt's own, which gives one token and verifies nothing; else 0. */
  get lead() {
    return this.rounds[0]?.tokens === 1 ? 1 : 0;
  }

  /** Tokens per second after the first round, by the server's clock; null before there are two. */
  rate() {
    if (this.rounds.length < 2) return null;
    const seconds = this.rounds.at(-1).t - this.rounds[0].t;
    const tokens = this.tokens.length - this.rounds[0].tokens;
    return seconds > 0 ? tokens / seconds : null;
  }

  /** Share of the proposed tokens that the target took; null where the server does not say. */
  acceptance() {
    if (!this.rounds.length || this.rounds.some(({ drafted }) => drafted === null)) return null;
    const proposed = this.rounds.reduce((sum, round) => sum + round.drafted, 0);
    const taken = this.tokens.filter(({ source, step }) => source !== "target" && step > 0).length;
    return proposed ? taken / proposed : null;
  }

  /** Small plain data for storage: numbers for tokens, no texts (the answer has them). */
  pack() {
    const kinds = ["content", "reasoning", "tool", "control"];
    return {
      ...(this.before.some(Boolean) ? { before: this.before } : {}),
      rounds: this.rounds.map(({ t, tokens, drafted }) => [Math.round(t * 1e4) / 1e4, tokens, drafted]),
      tokens: this.tokens.flatMap(({ text, source, step, kind }) => [
        // Texts outside of content and reasoning are not kept anywhere else, and never shown.
        kind in this.lengths ? text.length : 0,
        SOURCES.indexOf(source) + 4 * Math.max(kinds.indexOf(kind), 0) + 16 * step,
      ]),
    };
  }

  /** Whether a value is what pack() gives. */
  static isPacked(value) {
    const whole = (n) => Number.isSafeInteger(n) && n >= 0;
    if (!Array.isArray(value?.rounds) || !Array.isArray(value.tokens)) return false;
    const sound = value.rounds.every((round) => (
      Array.isArray(round) && Number.isFinite(round[0]) && whole(round[1]) && (round[2] === null || whole(round[2]))));
    if (value.before !== undefined && !(Array.isArray(value.before) && value.before.every(whole))) return false;
    const count = sound ? value.rounds.reduce((sum, round) => sum + round[1], 0) : -1;
    return 2 * count === value.tokens.length && value.tokens.every(whole);
  }

  /** The opposite of pack(), with the texts of the answer: {content, reasoning}. */
  static unpack(packed, texts) {
    const kinds = ["content", "reasoning", "tool", "control"];
    const [content = 0, reasoning = 0] = packed.before ?? [];
    const trace = new Trace({ content: texts.content?.slice(0, content), reasoning: texts.reasoning?.slice(0, reasoning) });
    let next = 0;
    for (const [t, count, drafted] of packed.rounds) {
      const tokens = [];
      for (let i = 0; i < count; i++, next += 2) {
        const [length, code] = [packed.tokens[next], packed.tokens[next + 1]];
        const kind = kinds[(code >> 2) & 3];
        const used = tokens.reduce((sum, token) => sum + (token.kind === kind ? token.text.length : 0), 0);
        const at = (trace.lengths[kind] ?? 0) + used;
        const text = (texts[kind] ?? "").slice(at, at + length);
        tokens.push({ text, source: SOURCES[code & 3], step: code >> 4, kind });
      }
      trace.add({ tokens, t, drafted });
    }
    return trace;
  }
}
