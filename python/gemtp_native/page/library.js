// Which conversation is open, and what happens to all of them: opened, named, deleted, imported. The address follows.

import { addressed, setAddress } from "./address.js";
import { confirmDialog } from "./dialog.js";
import { byId, say } from "./dom.js";
import { many } from "./figures.js";
import { conversationIn, LARGEST_FILE } from "./import.js";
import { notice } from "./notice.js";
import { Conversation } from "./store.js";

export class Library {
  /** @param page {refresh(), toPrompt()} */
  constructor(store, chat, page) {
    Object.assign(this, { store, chat, page });
    addEventListener("hashchange", () => this.follow());
    // Another tab saved or deleted a conversation.
    addEventListener("storage", ({ key }) => {
      const { id } = this.chat.conversation;
      const latest = key?.endsWith(id) && !this.chat.running ? this.store.load(id) : null;
      if (latest) this.chat.open(latest);
      else this.page.refresh();
    });
  }

  /** Opens what the address names. */
  follow() {
    const id = addressed();
    if (id === this.chat.conversation.id) return;
    const found = id === null ? null : this.store.load(id);
    this.chat.open(found ?? this.#empty());
    if (id !== null && !found) {
      notice("conversation", "The chat at this address is not in this browser: it was deleted, or is kept in another one.",
        ["Start a new chat", () => this.fresh({ replace: true })]);
    }
  }

  #empty() {
    return new Conversation({ mode: this.chat.mode });
  }

  fresh({ replace = false } = {}) {
    setAddress(null, { replace });
    this.chat.open(this.#empty());
    this.page.toPrompt();
  }

  open(id) {
    const found = this.store.load(id);
    if (id === this.chat.conversation.id) {
      this.page.refresh(); // it is open: an answer that is being made goes on
    } else if (found) {
      setAddress(id);
      this.chat.open(found);
    } else {
      this.page.refresh();
    }
    this.page.toPrompt();
  }

  rename(id, title) {
    const current = this.chat.conversation;
    const conversation = id === current.id ? current : this.store.load(id);
    if (conversation) {
      conversation.title = title;
      this.store.save(conversation);
      say(`Renamed to ${title}.`);
    }
    this.page.refresh();
  }

  async remove(conversation) {
    const name = conversation.title || "Untitled";
    if (!(await confirmDialog("Delete this chat?", `“${name}” is deleted permanently.`, "Delete"))) return;
    if (conversation.id === this.chat.conversation.id) this.fresh({ replace: true });
    this.store.delete(conversation.id);
    this.page.refresh();
    byId("new").focus();
  }

  async removeAll() {
    const all = this.store.list();
    if (!(await confirmDialog("Delete all chats?", `All ${many(all.length, "chat")} are deleted permanently.`, "Delete all"))) return;
    this.fresh({ replace: true });
    for (const { id } of all) this.store.delete(id);
    this.page.refresh();
  }

  /** Imports files; those that cannot be are named, and change nothing. */
  async receive(files) {
    const problems = [];
    const taken = [];
    for (const file of files) {
      try {
        taken.push(await this.#take(file));
      } catch (error) {
        problems.push(error.message);
      }
    }
    if (taken.length) {
      this.open(taken.at(-1).id);
      say(`Imported ${many(taken.length, "chat")}.`);
    }
    if (problems.length) notice("conversation", problems.join(" "), ["OK"]);
  }

  async #take(file) {
    if (file.size > LARGEST_FILE) throw new Error(`“${file.name}” is too large for a chat: it has more than ${LARGEST_FILE >> 20} MiB.`);
    const conversation = conversationIn(file.name, await file.text());
    if (!this.store.add(conversation)) throw new Error(`This browser has no room left for “${file.name}”: delete other chats first.`);
    return conversation;
  }
}
