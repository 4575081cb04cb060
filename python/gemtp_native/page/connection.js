// What the server is and whether it is there: first contact, lost and found again, the key.

import { isHealthy, key, properties, tryKey, Trouble } from "./api.js";
import { openDialog } from "./dialog.js";
import { h, say } from "./dom.js";
import { clearNotice, notice } from "./notice.js";

const FIRST_WAIT = 2; // seconds to the next look for a server that is away; doubles up to the longest
const LONGEST_WAIT = 30;

export class Connection {
  /** @param onready is called with /props whenever the server was found. */
  constructor({ onready, onaway }) {
    Object.assign(this, { onready, onaway });
    this.props = null;
  }

  async open() {
    clearTimeout(this.timer);
    try {
      this.props = await properties();
      if (this.props.auth) await tryKey();
    } catch (error) {
      this.handle(error);
      return;
    }
    this.wait = FIRST_WAIT;
    clearNotice("server");
    this.onready(this.props);
  }

  /** Says what went wrong, and offers a way on. */
  async handle(error) {
    if (!(error instanceof Trouble)) throw error;
    this.onaway();
    if (error.kind === "key") this.askKey(key.get() ? "The server refused this key." : null);
    else if (error.kind === "lost") await this.#lookFor(error.message);
    else notice("server", error.message, ["Try again", () => this.open()]);
  }

  /** Only one connection may have been lost: no word about a server that is there. */
  async #lookFor(sentence) {
    if (!this.props || !(await isHealthy())) this.#lookAgain(sentence);
  }

  #lookAgain(sentence) {
    const wait = this.wait ?? FIRST_WAIT;
    this.wait = Math.min(wait * 2, LONGEST_WAIT);
    notice("server", `${sentence} Is “gemtp serve” running there? This page tries again every few seconds.`, ["Try now", () => this.open()]);
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      if (await isHealthy()) {
        say("The server is available again.");
        this.open();
      } else {
        this.#lookAgain(sentence);
      }
    }, wait * 1000);
  }

  askKey(problem = null) {
    if (this.asking) return;
    const field = h("input", { id: "key", type: "password", autocomplete: "off", required: true, "aria-describedby": "key-hint" });
    const form = h("form", { method: "dialog" },
      problem && h("p", { class: "problem", role: "alert" }, problem),
      h("div", { class: "setting" }, h("label", { for: "key" }, "API key"), field,
        h("p", { class: "fine", id: "key-hint" }, "The key that gemtp serve was started with. It is kept until this tab is closed.")),
      h("div", { class: "row end" }, h("button", { type: "submit", class: "button strong" }, "Use this key")));
    let given = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      given = true;
      key.set(field.value.trim());
      dialog.close();
      this.open();
    });
    this.asking = true;
    const dialog = openDialog("This server requires a key", form, {
      name: "small",
      onclose: () => {
        this.asking = false;
        if (!given) notice("server", "The server requires an API key.", ["Enter the key", () => this.askKey()]);
      },
    });
    field.focus();
  }
}
