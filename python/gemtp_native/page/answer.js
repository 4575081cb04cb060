// One answer while it is made: what came so far, its tokens, and how it ended.

import { stream } from "./api.js";
import { Trace } from "./trace.js";

export class Answer {
  /** @param request {url, body} of request.js */
  constructor(request) {
    this.request = request;
    this.content = "";
    this.reasoning = "";
    this.trace = new Trace();
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
      this.trace.add(chunk.gemtp);
      this.times.push({ t: chunk.gemtp.t ?? 0, content: this.content.length });
    }
  }

  /** What of it is kept with the conversation. */
  record() {
    const { usage, timings, stats, finish } = this;
    return {
      content: this.content,
      reasoning: this.reasoning,
      trace: this.trace.pack(),
      usage,
      timings,
      stats,
      finish,
      trouble: this.trouble?.message ?? null,
    };
  }
}
