// The list of conversations.

import { byId, h, iconButton } from "./dom.js";

export class Sidebar {
  constructor({ open, remove, fresh }) {
    this.actions = { open, remove };
    byId("close-sidebar").append(...iconButton("close", "").childNodes);
    byId("open-sidebar").addEventListener("click", () => this.toggle(true));
    byId("close-sidebar").addEventListener("click", () => this.toggle(false));
    byId("new").addEventListener("click", () => {
      this.toggle(false, false);
      fresh();
    });
    byId("sidebar").addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.shown) return;
      event.stopPropagation();
      this.toggle(false);
    });
    document.addEventListener("pointerdown", (event) => {
      if (this.shown && !event.target.closest("#sidebar, #open-sidebar")) this.toggle(false, false);
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
    byId("conversations").replaceChildren(...conversations.map((conversation) => {
      const name = conversation.title || "Untitled";
      return h("li", { class: conversation.id === current.id ? "current" : null },
        h("button", { type: "button", class: "conversation", title: name, dir: "auto",
          "aria-current": conversation.id === current.id ? "true" : null,
          onclick: () => { this.toggle(false, false); this.actions.open(conversation.id); } }, name),
        iconButton("remove", `Delete “${name}”`, () => this.actions.remove(conversation)));
    }));
  }
}
