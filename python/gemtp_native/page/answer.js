// One answer while it is made: what came so far, its tokens, and how it ended.

import { stream } from "./api.js";
import { Trace } from "./trace.js";

export class Answer {
  /**
   * @param request {url, body} of request.js
   * @param earlier the record of an answer that this one continues
   */
  constructor(request, earlier = null) {
    this.request = request;
    this.earlier = earlier;
    this.content = earlier?.content ?? "";
    this.reasoning = earlier?.reasoning ?? "";
    const texts = { content: this.content, reasoning: this.reasoning };
    this.trace = earlier?.trace ? Trace.unpack(earlier.trace, texts) : new Trace(texts);
    this.begin = this.trace.rounds.at(-1)?.t ?? 0; // seconds that the earlier part took
    this.prompt = null; // {done, total} while the prompt is read
    this.finish = null; // "stop", "length", ... as the server says; "stopped", "lost", "error"
    this.trouble = null;
    this.usage = null;
    this.timings = null;
    this.stats = null;
    this.times = []; // per round: {ms, content}: the browser's clock from the first one, text so far
    this.abort = new AbortController();
  }

  /** Runs to the end, never throws; calls onchange after each chunk. */
  async run(onchange = () => {}) {
    try {
      for await (const chunk of stream(this.request, this.abort.signal)) {
        this.#take(chunk);
        onchange();
      }
      this.finish ??= "stop";
    } catch (error) {
      if (error.name === "AbortError") {
        this.finish = "stopped";
      } else {
        this.trouble = error;
        this.finish = error.kind === "lost" ? "lost" : "error";
      }
    }
    this.prompt = null;
    onchange();
    return this;
  }

  stop() {
    this.abort.abort();
  }

  get started() {
    return this.trace.tokens.length > 0 || this.content !== "" || this.reasoning !== "";
  }

  /** Whether anything came for this request. */
  get answered() {
    return this.times.length > 0 || this.content !== (this.earlier?.content ?? "") || this.reasoning !== (this.earlier?.reasoning ?? "");
  }

  #take(chunk) {
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? choice;
    this.content += delta?.content ?? delta?.text ?? "";
    this.reasoning += delta?.reasoning_content ?? "";
    if (choice?.finish_reason) this.finish = choice.finish_reason;
    this.usage = chunk.usage ?? this.usage;
    this.timings = chunk.timings ?? this.timings;
    this.stats = chunk.gemtp_stats ?? chunk.timings?.gemtp_stats ?? this.stats;
    const { tokens, prompt } = chunk.gemtp ?? {};
    if (prompt) this.prompt = prompt;
    if (tokens) {
      this.prompt = null;
      this.trace.add({ ...chunk.gemtp, t: this.begin + (chunk.gemtp.t ?? 0) });
      this.times.push({ t: chunk.gemtp.t ?? 0, content: this.content.length });
    }
  }

  /** What of it is kept with the conversation. */
  record() {
    const { usage, finish, earlier } = this;
    const { timings, stats } = together(earlier, this);
    return {
      content: this.content,
      reasoning: this.reasoning,
      trace: this.trace.pack(),
      usage,
      timings,
      stats,
      finish,
      trouble: this.trouble?.message ?? null,
      continued: earlier !== null,
    };
  }
}

/** The figures of an answer and of the one that it continues; null where one of them has none. */
function together(earlier, { timings, stats }) {
  if (!earlier) return { timings, stats };
  const sum = (name) => (earlier.timings[name] ?? 0) + (timings[name] ?? 0);
  if (!earlier.timings || !timings) return { timings: null, stats: null };
  const names = ["predicted_n", "predicted_ms", "draft_n", "draft_n_accepted"];
  const sums = Object.fromEntries(names.map((name) => [name, sum(name)]));
  const joined = { ...earlier.timings, ...sums, predicted_per_second: sums.predicted_ms ? (1000 * sums.predicted_n) / sums.predicted_ms : 0 };
  const rounds = earlier.stats && stats ? { ...stats, rounds: (earlier.stats.rounds ?? 0) + (stats.rounds ?? 0) } : null;
  return { timings: joined, stats: rounds };
}
