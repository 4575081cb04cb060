// The race: the same request plain and drafted, one after the other, then replayed side by side with the
// times that were measured.

import { Answer } from "./answer.js";
import { openDialog } from "./dialog.js";
import { h, icon, say } from "./dom.js";
import { many, number, seconds } from "./figures.js";
import { PlainView, Tokens } from "./render.js";

/** What two finished runs show: pure, tested without a browser. */
export function verdict(plain, drafted) {
  const bytes = (run) => new TextEncoder().encode(run.reasoning + "\u0000" + run.content);
  const [a, b] = [bytes(plain), bytes(drafted)];
  let same = 0;
  while (same < a.length && same < b.length && a[same] === b[same]) same += 1;
  const equal = a.length === b.length && same === a.length;
  const [slow, fast] = [duration(plain), duration(drafted)];
  return { equal, bytes: a.length - 1, same, plain: slow, drafted: fast, ratio: fast > 0 ? slow / fast : null };
}

/** Seconds from the first round to the last, by the server's clock: the prompt is not raced. */
export function duration(run) {
  const { rounds } = run.trace;
  return rounds.length ? rounds.at(-1).t - rounds[0].t : 0;
}

/** Length of text and tokens that a run had after `s` seconds. */
export function progressAt(run, s) {
  const { rounds } = run.trace;
  let [k, tokens] = [0, 0];
  while (k < rounds.length && rounds[k].t - rounds[0].t <= s) tokens += rounds[k++].tokens;
  return { content: k ? run.times[k - 1].content : 0, tokens, done: k === rounds.length };
}

class Lane {
  constructor(name, title) {
    this.text = h("div", { class: "body plain lane-text", tabindex: 0, role: "group", "aria-label": title });
    this.clock = h("b", { class: "clock" }, "–");
    this.rate = h("span", { class: "fine" });
    this.bar = h("progress", { max: 1, value: 0, "aria-label": `${title}: progress` });
    this.element = h("section", { class: `lane ${name}` },
      h("div", { class: "lane-head" }, h("h3", {}, title), this.clock, this.rate), this.bar, this.text);
  }

  /** Begins anew with a run's tokens. */
  begin(run) {
    this.run = run;
    this.list = run.trace.spelled("content");
    this.text.replaceChildren();
    this.view = new PlainView(this.text, new Tokens(this.list));
    this.clock.textContent = "–";
  }

  /** While it is measured. */
  live(run, total) {
    if (this.run !== run) {
      this.begin(run);
      this.list.length = 0;
    }
    for (const token of run.trace.spelled("content").slice(this.list.length)) this.list.push(token);
    this.view.update(run.content);
    this.text.scrollTop = this.text.scrollHeight;
    const count = run.trace.tokens.length;
    this.bar.value = Math.min(count / total, 1);
    this.clock.textContent = run.prompt ? "reading the prompt" : seconds(duration(run));
    this.rate.textContent = `${number(count)} of ${many(total, "token")}`;
  }

  /** As it stood after s seconds; true when it is complete. */
  show(s) {
    const { content, tokens, done } = progressAt(this.run, s);
    this.view.update(this.run.content.slice(0, done ? undefined : content));
    const all = this.run.trace.tokens.length;
    const took = duration(this.run);
    this.bar.value = all ? tokens / all : 1;
    this.clock.textContent = seconds(Math.min(s, took));
    const rate = this.run.trace.rate();
    this.rate.textContent = done && rate ? `${number(rate)} tokens/s` : many(tokens, "token");
    this.element.classList.toggle("finished", done);
    this.text.scrollTop = this.text.scrollHeight;
    return done;
  }
}

export class Race {
  /** @param requestOf (draft) -> request; @param draft of the second run; @param tokens that are expected */
  constructor({ requestOf, draft, tokens, onclose }) {
    Object.assign(this, { requestOf, draft, tokens });
    this.lanes = [new Lane("plain", "Without drafts"), new Lane("drafted", "With drafts")];
    this.said = h("p", { class: "verdict", role: "status" });
    this.again = h("button", { type: "button", class: "button", disabled: true, onclick: () => this.replay() }, icon("again"), h("span", {}, "Replay"));
    this.speed = h("select", { id: "race-speed", onchange: () => this.replay() },
      [[1, "real time"], [4, "4 times slower"], [16, "16 times slower"]].map(([value, text]) => h("option", { value }, text)));
    const controls = h("div", { class: "row" }, this.again, h("label", { class: "inline", for: "race-speed" }, "Speed ", this.speed));
    const about = h("p", { class: "fine" },
      "The same request runs without drafts and then with them, one after the other on this server. Both are then replayed with the measured times, from the first token on. Other requests at the same time would slow both.");
    this.dialog = openDialog("Race", [this.said, h("div", { class: "lanes" }, this.lanes.map((lane) => lane.element)), controls, about], {
      name: "race",
      onclose: () => {
        this.closed = true;
        this.running?.stop();
        cancelAnimationFrame(this.frame);
        onclose?.();
      },
    });
  }

  /** Measures both, then replays. */
  async run() {
    const runs = [];
    for (const [k, draft] of [0, this.draft].entries()) {
      this.said.textContent = k ? "Running with drafts …" : "Running without drafts …";
      this.running = new Answer(this.requestOf(draft));
      const run = await this.running.run(() => this.lanes[k].live(this.running, this.tokens));
      if (this.closed) return;
      if (run.trouble || !run.trace.rounds.length) {
        this.#failed(run);
        return;
      }
      runs.push(run);
    }
    this.running = null;
    this.runs = runs;
    this.replay();
  }

  #failed(run) {
    this.said.textContent = run.trouble?.message ?? "The server gave no tokens: there is nothing to race.";
    this.said.classList.add("trouble");
    const button = h("button", { type: "button", class: "button", onclick: () => {
      button.remove();
      this.said.classList.remove("trouble");
      this.run();
    } }, "Try again");
    this.said.after(button);
  }

  replay() {
    if (!this.runs) return;
    cancelAnimationFrame(this.frame);
    this.again.disabled = false;
    this.said.textContent = "";
    this.lanes.forEach((lane, k) => lane.begin(this.runs[k]));
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const slower = Number(this.speed.value);
    const began = performance.now();
    const step = () => {
      const s = still ? Infinity : (performance.now() - began) / 1000 / slower;
      const done = this.lanes.map((lane) => lane.show(s));
      if (done.every(Boolean)) this.#conclude();
      else this.frame = requestAnimationFrame(step);
    };
    step();
  }

  #conclude() {
    const result = verdict(...this.runs);
    this.said.replaceChildren(...conclusion(result));
    this.said.dataset.equal = String(result.equal);
    say(this.said.textContent);
  }
}

function conclusion({ equal, bytes, same, plain, drafted, ratio }) {
  const times = ratio === null ? [] : [
    h("strong", {}, `${ratio.toFixed(2)} ×`), ` as fast with drafts (${seconds(drafted)} rather than ${seconds(plain)}). `];
  const texts = equal
    ? `The texts are equal, byte for byte (${many(bytes, "byte")}).`
    : `The texts differ from byte ${number(same)} on. This should never happen; please report it.`;
  return [...times, h("span", { class: equal ? "equal" : "unequal" }, texts)];
}
