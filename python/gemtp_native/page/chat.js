// The open conversation: its messages on the page, and the answer that is being made.

import { Answer } from "./answer.js";
import { byId, h, say } from "./dom.js";
import { many, number, percent, sparkline } from "./figures.js";
import { AnswerMessage, editor, systemMessage, userMessage } from "./message.js";
import { clearNotice } from "./notice.js";
import { Race } from "./race.js";
import { DEFAULTS, newSeed, options, request } from "./request.js";
import { Conversation } from "./store.js";

export class Chat {
  /** @param app {store, settings, props, onchange, ontrouble, storageFull, isFixed, sayFixed, toPrompt} */
  constructor(app) {
    this.app = app;
    this.thread = byId("thread");
    this.scroller = byId("scroll");
    this.conversation = new Conversation();
    this.running = null; // the Answer that is being made
    this.node = null; // its message
    this.isLeft = false; // whether the page is being left, which breaks connections
    this.follow = true; // whether the newest text is kept in view
    this.scroller.addEventListener("scroll", () => this.#watchScroll());
    // A notice that comes makes the space for messages smaller.
    new ResizeObserver(() => this.#keepUp()).observe(this.scroller);
    byId("to-end").addEventListener("click", () => {
      this.follow = true;
      this.#keepUp();
    });
  }

  get mode() {
    return this.app.settings.mode ?? this.app.props?.mode ?? "chat";
  }

  open(conversation) {
    this.stop();
    clearNotice("conversation");
    byId("live").replaceChildren();
    this.conversation = conversation;
    this.follow = true;
    this.render();
  }

  render() {
    const path = this.conversation.path();
    byId("tip").hidden = true;
    const completion = this.conversation.mode === "completion";
    const { system } = this.conversation;
    const items = system && path.length ? [systemMessage(system)] : [];
    path.forEach((node, k) => {
      if (node.role === "user" && !(completion && path[k + 1])) {
        items.push(userMessage(node, this.conversation, this));
      } else if (node.role === "assistant") {
        const before = completion ? path[k - 1] : null;
        items.push(new AnswerMessage(node, this.conversation, this, before).finish().element);
      }
    });
    this.thread.replaceChildren(...items);
    this.thread.classList.toggle("completion", completion);
    this.app.onchange();
    this.#keepUp();
  }

  // ------------------------------------------------------------ sending

  /** Sends what the user wrote; in completion mode nothing means to go on. */
  send(text) {
    if (this.running) return false;
    const path = this.conversation.path();
    if (!path.length) this.conversation.mode = this.mode;
    if (text.trim() === "" && !(this.conversation.mode === "completion" && path.length)) return false;
    const user = this.conversation.add(path.at(-1)?.id ?? null, { role: "user", content: text });
    this.#answer(user);
    return true;
  }

  edit(node) {
    if (this.running) return;
    const shown = byId(`message-${node.id}`) ?? byId(`message-${this.conversation.active[node.id]}`);
    const form = editor(node, {
      cancel: () => {
        this.render();
        byId("prompt").focus();
      },
      done: (text) => {
        if (text.trim() === "") return;
        this.#answer(this.conversation.add(node.parent, { role: "user", content: text }));
        byId("prompt").focus();
      },
    });
    byId("tip").hidden = true;
    shown.replaceChildren(form);
    const field = form.querySelector("textarea");
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  editLatest() {
    const user = this.conversation.path().findLast((node) => node.role === "user" && node.content !== "");
    if (user) this.edit(user);
  }

  /** Another answer beside this one: with a new seed, unless the user fixed it. */
  again(node) {
    if (this.running) return;
    this.#answer(this.conversation.nodes[node.parent]);
    if (this.app.isFixed()) this.app.sayFixed();
  }

  againLatest() {
    const last = this.conversation.path().at(-1);
    if (last?.role === "assistant") this.again(last);
  }

  /** The same request again, or one with other options, in place of an answer that failed or was cut. */
  retry(node, chosen = node.options) {
    if (this.running) return;
    const parent = this.conversation.nodes[node.parent];
    this.conversation.remove(node);
    this.#answer(parent, chosen);
  }

  /**
   * Goes on with an answer that was cut. Its seed stays: what comes is what a longer answer would have had, as long as the
   * text so far is made of the same tokens when it is read again.
   */
  proceed(node) {
    if (this.running) return;
    const { conversation } = this;
    const record = { ...node };
    node.options = node.options?.seed === undefined ? options(this.app.settings, newSeed()) : node.options;
    const chosen = { ...node.options, max_tokens: this.app.settings.max_tokens ?? DEFAULTS.max_tokens };
    const path = conversation.pathTo(node);
    const asked = request(conversation.mode, path, chosen, {
      system: node.system ?? conversation.system ?? "", thinking: node.thinking, model: this.app.props?.model,
    });
    Object.assign(node, { trouble: null, finish: "left" });
    this.#make(node, new Answer(asked, record));
  }

  /** Presses the button that the latest answer has for going on. */
  proceedLatest() {
    this.thread.lastElementChild?.querySelector(".cut .button")?.click();
  }

  /** Whether nothing stands behind a message. */
  isLatest(node) {
    return this.conversation.path().at(-1)?.id === node.id;
  }

  turn(node, by) {
    if (this.running) return;
    this.conversation.turn(node, by);
    this.#save();
    this.render();
  }

  textTo(node) {
    return this.conversation.pathTo(node).map(({ content }) => content).join("");
  }

  stop() {
    this.running?.stop();
  }

  #answer(user, chosen = null) {
    const { settings } = this.app;
    const { conversation } = this;
    const used = chosen ?? options(settings, newSeed());
    const node = conversation.add(user.id, {
      role: "assistant", content: "", options: used, system: conversation.system ?? settings.system, thinking: settings.thinking,
      finish: "left",
    });
    this.#make(node, new Answer(this.#request(node, used)));
  }

  /** Runs an answer and shows and keeps it as `node`. */
  async #make(node, answer) {
    const { conversation } = this;
    clearNotice("conversation");
    this.running = answer;
    this.node = node;
    this.follow = true;
    this.#save();
    this.render();
    const before = conversation.mode === "completion" ? conversation.nodes[node.parent] : null;
    const view = new AnswerMessage(node, conversation, this, before);
    this.thread.lastElementChild.replaceWith(view.element);
    this.thread.setAttribute("aria-busy", "true");
    if (document.activeElement === document.body) this.app.toPrompt(); // the button that was pressed is gone
    say("The model is answering.");
    this.#watch(answer, view);
    await answer.run();
    cancelAnimationFrame(this.frame);
    Object.assign(node, answer.record());
    this.running = null;
    this.node = null;
    this.#finish(conversation, node, answer, view);
  }

  #request(node, used) {
    const path = this.conversation.pathTo(this.conversation.nodes[node.parent]);
    return request(this.conversation.mode, path, used, { ...node, model: this.app.props?.model });
  }

  /** Draws what came, at most once a frame and, with what the browser makes of it, a third of the time. */
  #watch(answer, view) {
    let next = 0;
    let seen = -1;
    let drawn = null; // when the latest drawing began, until it is on the screen
    const draw = () => {
      this.frame = requestAnimationFrame(draw);
      const now = performance.now();
      if (drawn !== null) next = now + 2 * (now - drawn);
      drawn = null;
      const state = answer.trace.rounds.length + (answer.prompt?.done ?? 0);
      if (now < next || state === seen) return;
      seen = state;
      drawn = now;
      const finished = view.update(answer);
      this.#live(answer);
      this.#keepUp();
      for (const element of finished) say(element.textContent);
    };
    view.update(answer);
    this.#live(answer);
    this.frame = requestAnimationFrame(draw);
  }

  #finish(conversation, node, answer, view) {
    conversation.changed = Date.now();
    if (!this.isLeft) this.#save(conversation);
    this.thread.removeAttribute("aria-busy");
    if (this.conversation === conversation) {
      view.finish();
      this.#live(answer);
      this.#keepUp();
    }
    const rate = answer.timings?.predicted_per_second ?? answer.trace.rate();
    const tail = rate ? `, ${number(rate)} tokens a second` : "";
    const end = { length: "was cut off", stopped: "was stopped" }[node.finish] ?? "is complete";
    say(node.trouble ?? `The answer ${end}: ${many(answer.trace.tokens.length, "token")}${tail}.`);
    this.app.onchange();
    if (answer.trouble) this.app.ontrouble(answer.trouble);
  }

  /** The page is being left: what has come of an answer is kept. */
  keep() {
    this.isLeft = true;
    if (!this.running) return;
    Object.assign(this.node, this.running.record(), { finish: "left", trouble: null });
    this.app.store.save(this.conversation);
  }

  #save(conversation = this.conversation) {
    const outcome = this.app.store.save(conversation);
    if (outcome === "full") this.app.storageFull();
  }

  // ------------------------------------------------------------ the race

  race(node) {
    if (this.running) return;
    const draft = node.options.draft === 0 || node.options.draft === "0" ? "auto" : node.options.draft;
    const tokens = Math.max(node.timings?.predicted_n ?? 0, node.usage?.completion_tokens ?? 0) || node.options.max_tokens || 1;
    const stopped = node.continued || ["stopped", "left", "lost", "error"].includes(node.finish);
    const max_tokens = stopped ? Math.max(1, node.trace.rounds.reduce((sum, [, count]) => sum + count, 0)) : node.options.max_tokens;
    const race = new Race({
      draft,
      tokens: stopped ? max_tokens : tokens,
      requestOf: (depth) => this.#request(node, { ...node.options, max_tokens, draft: depth }),
    });
    race.run();
  }

  raceLatest() {
    const last = this.conversation.path().at(-1);
    if (last?.role === "assistant" && last.trace?.rounds.length) this.race(last);
  }

  // ------------------------------------------------------------ around the text

  /** Figures beside the message field while an answer is made. */
  #live({ trace, timings, stats, started }) {
    const live = byId("live");
    if (!started) {
      live.replaceChildren();
      return;
    }
    const rate = timings?.predicted_per_second ?? trace.rate();
    const accepted = timings?.draft_n ? timings.draft_n_accepted / timings.draft_n : trace.acceptance();
    const rounds = stats?.rounds ?? trace.rounds.length - trace.lead;
    const figure = (value, name) => h("span", { class: "figure" }, h("b", {}, value), ` ${name}`);
    live.replaceChildren(
      sparkline(trace),
      figure(number(rate), "tokens/s"),
      figure(number(rounds), "rounds"),
      accepted === null
        ? figure(number(trace.tokens.length / Math.max(rounds, 1)), "a round")
        : figure(percent(accepted), "accepted"),
    );
  }

  #watchScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    byId("tip").hidden = true;
    this.follow = scrollHeight - scrollTop - clientHeight < 60 || !this.thread.childElementCount;
    byId("to-end").hidden = this.follow;
  }

  #keepUp() {
    if (this.follow) this.scroller.scrollTop = this.thread.childElementCount ? this.scroller.scrollHeight : 0;
  }
}
