// The list of conversations: search, rename, delete.

import { byId, h, icon, iconButton, say } from "./dom.js";
import { many } from "./figures.js";
import { search } from "./search.js";

export class Sidebar {
  /** @param actions {open(id), rename(id, title), remove(conversation), fresh(), receive(files)} */
  constructor(actions) {
    this.actions = actions;
    this.renaming = false;
    this.#buttons();
    byId("search").addEventListener("input", () => {
      this.#list();
      const query = byId("search").value.trim();
      if (query) say(`${many(this.found, "chat")} found.`);
    });
    byId("sidebar").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      if (event.target.id === "search" && event.target.value) {
        event.target.value = "";
        this.#list();
      } else if (this.shown) {
        this.toggle(false);
      } else {
        return;
      }
      event.stopPropagation();
    });
    document.addEventListener("pointerdown", (event) => {
      if (this.shown && !event.target.closest("#sidebar, #open-sidebar, dialog")) this.toggle(false, false);
    });
  }

  #buttons() {
    byId("close-sidebar").append(icon("close"));
    byId("open-sidebar").addEventListener("click", () => this.toggle(true));
    byId("close-sidebar").addEventListener("click", () => this.toggle(false));
    byId("new").addEventListener("click", () => {
      this.toggle(false, false);
      this.actions.fresh();
    });
    const files = byId("files");
    byId("import").addEventListener("click", () => files.click());
    files.addEventListener("change", () => {
      this.toggle(false, false);
      this.actions.receive([...files.files]);
      files.value = "";
    });
  }

  get shown() {
    return document.body.classList.contains("with-sidebar");
  }

  /** On a narrow screen it lies over the page. */
  toggle(shown, focus = true) {
    document.body.classList.toggle("with-sidebar", shown);
    byId("open-sidebar").setAttribute("aria-expanded", String(shown));
    if (focus) byId(shown ? "new" : "open-sidebar").focus();
  }

  show(conversations, current) {
    Object.assign(this, { conversations, current });
    byId("search").hidden = conversations.length < 2 && byId("search").value === "";
    if (!this.renaming) this.#list();
  }

  #list() {
    const found = search(this.conversations, byId("search").value);
    this.found = found.length;
    const items = found.map(({ conversation, excerpt }) => this.#item(conversation, excerpt));
    if (!found.length && byId("search").value.trim()) items.push(h("li", { class: "fine none" }, "No chat has these words."));
    byId("conversations").replaceChildren(...items);
  }

  #item(conversation, excerpt) {
    const name = conversation.title || "Untitled";
    const isCurrent = conversation.id === this.current.id;
    const item = h("li", { class: isCurrent ? "current" : null, "data-id": conversation.id });
    const rename = () => this.#rename(item, conversation);
    item.append(
      h("button", { type: "button", class: "conversation", title: name, dir: "auto", "aria-current": isCurrent ? "true" : null,
        onclick: () => { this.toggle(false, false); this.actions.open(conversation.id); },
        onkeydown: (event) => {
          if (event.key === "F2") rename();
          else if (event.key === "Delete") this.actions.remove(conversation);
        } }, h("span", { class: "name" }, name), excerpt && h("span", { class: "fine" }, excerpt)),
      iconButton("edit", `Rename “${name}”`, rename),
      iconButton("remove", `Delete “${name}”`, () => this.actions.remove(conversation)));
    return item;
  }

  /** The name as a field: Enter, or leaving it, keeps what was typed; Escape does not. */
  #rename(item, conversation) {
    const field = h("input", { type: "text", class: "rename", "aria-label": "Name of this chat", maxlength: 200, dir: "auto" });
    field.value = conversation.title;
    this.renaming = true;
    const done = (keep, back) => {
      if (!this.renaming) return;
      this.renaming = false;
      const title = field.value.trim();
      if (keep && title && title !== conversation.title) this.actions.rename(conversation.id, title);
      else this.#list();
      if (back) [...byId("conversations").children].find((li) => li.dataset.id === conversation.id)?.firstChild.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
      event.preventDefault();
      event.stopPropagation();
      done(event.key === "Enter", true);
    });
    field.addEventListener("blur", () => done(true, false));
    item.replaceChildren(field);
    field.focus();
    field.select();
  }
}
