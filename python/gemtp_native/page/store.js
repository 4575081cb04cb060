// Conversations, kept in the browser. A conversation is a tree: an edited message and an answer made
// again are branches beside the old ones, and `active` says which branch is shown.

const PREFIX = "gemtp.conversation.";
const SETTINGS = "gemtp.settings";

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");
}

export class Conversation {
  constructor(data = {}) {
    this.id = data.id ?? newId();
    this.title = data.title ?? "";
    this.mode = data.mode ?? "chat";
    this.system = data.system ?? null; // its own system prompt; null: that of the settings
    this.changed = data.changed ?? Date.now();
    this.nodes = data.nodes ?? {}; // id -> {id, parent, role, content, ...}
    this.active = data.active ?? {}; // parent's id, or "root" -> id of the child that is shown
  }

  /** Appends a message behind `parent` (null: the first one) and shows it. */
  add(parent, message) {
    const node = { id: newId(), parent, ...message };
    this.nodes[node.id] = node;
    this.active[parent ?? "root"] = node.id;
    if (this.title === "" && node.role === "user") this.title = titleOf(node.content);
    return node;
  }

  /** The messages that are shown, from the first on. */
  path() {
    const shown = [];
    let parent = null;
    for (let node = this.nodes[this.active.root]; node && node.parent === parent; node = this.nodes[this.active[parent]]) {
      shown.push(node);
      parent = node.id;
    }
    return shown;
  }

  /** The messages from the first up to and including `node`. */
  pathTo(node) {
    const path = [];
    for (let at = node; at; at = this.nodes[at.parent]) path.unshift(at);
    return path;
  }

  /** The branches that `node` is one of, oldest first. */
  siblings(node) {
    return Object.values(this.nodes).filter((other) => other.parent === node.parent);
  }

  /** Shows the branch `by` places beside `node`. */
  turn(node, by) {
    const all = this.siblings(node);
    const next = all[all.indexOf(node) + by];
    if (next) this.active[node.parent ?? "root"] = next.id;
  }

  /** Removes a message and all behind it; a branch beside it is shown instead. */
  remove(node) {
    const beside = this.siblings(node).filter((other) => other !== node).at(-1);
    const gone = [node];
    while (gone.length) {
      const next = gone.pop();
      gone.push(...Object.values(this.nodes).filter((other) => other.parent === next.id));
      delete this.nodes[next.id];
      delete this.active[next.id];
    }
    if (beside) this.active[node.parent ?? "root"] = beside.id;
    else delete this.active[node.parent ?? "root"];
  }
}

export function titleOf(text) {
  const line = text.trim().split("\n", 1)[0].trim();
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()}…` : line;
}

/** Conversations and settings in a Storage; one key a conversation, so that two tabs do not overwrite each other. */
export class Store {
  constructor(storage) {
    this.storage = storage;
    this.gone = new Set(); // ids of those that were deleted: an answer that was running does not bring one back
    this.read = new Map(); // id -> {text, conversation}: what list() has read before
  }

  /** All of them, the latest first, to be looked at only: load() gives one to change. What cannot be read is left alone. */
  list() {
    const found = [];
    for (let i = 0; i < this.storage.length; i++) {
      const key = this.storage.key(i);
      if (!key.startsWith(PREFIX)) continue;
      const id = key.slice(PREFIX.length);
      const text = this.storage.getItem(key);
      if (this.read.get(id)?.text !== text) this.read.set(id, { text, conversation: this.load(id) });
      const { conversation } = this.read.get(id);
      if (conversation) found.push(conversation);
    }
    return found.sort((a, b) => b.changed - a.changed);
  }

  load(id) {
    try {
      const data = JSON.parse(this.storage.getItem(PREFIX + id));
      const sound = data && typeof data.nodes === "object" && typeof data.active === "object";
      return sound ? new Conversation({ ...data, id }) : null;
    } catch {
      return null;
    }
  }

  /**
   * Returns "saved"; "thinned" if the traces of older conversations had to go to make room; "full"
   * if there is none.
   */
  save(conversation) {
    if (this.gone.has(conversation.id)) return "saved";
    const text = JSON.stringify(conversation);
    if (this.#write(PREFIX + conversation.id, text)) return "saved";
    for (const { id } of this.list().reverse()) {
      if (id === conversation.id) continue;
      const old = this.load(id);
      for (const node of Object.values(old.nodes)) delete node.trace;
      this.#write(PREFIX + old.id, JSON.stringify(old));
      if (this.#write(PREFIX + conversation.id, text)) return "thinned";
    }
    return "full";
  }

  /** Saves a new one, if there is room without taking anything from the others. */
  add(conversation) {
    return this.#write(PREFIX + conversation.id, JSON.stringify(conversation));
  }

  delete(id) {
    this.gone.add(id);
    this.read.delete(id);
    this.storage.removeItem(PREFIX + id);
  }

  settings(defaults) {
    try {
      const saved = JSON.parse(this.storage.getItem(SETTINGS)) ?? {};
      const known = Object.keys(defaults).filter((key) => key in saved);
      return { ...defaults, ...Object.fromEntries(known.map((key) => [key, saved[key]])) };
    } catch {
      return { ...defaults };
    }
  }

  saveSettings(settings) {
    return this.#write(SETTINGS, JSON.stringify(settings));
  }

  #write(key, text) {
    try {
      this.storage.setItem(key, text);
      return true;
    } catch {
      return false;
    }
  }
}

/** A Storage that forgets, for browsers that refuse one. */
export class Forgetful {
  #items = new Map();
  get length() {
    return this.#items.size;
  }
  key(i) {
    return [...this.#items.keys()][i] ?? null;
  }
  getItem(key) {
    return this.#items.get(key) ?? null;
  }
  setItem(key, value) {
    this.#items.set(key, String(value));
  }
  removeItem(key) {
    this.#items.delete(key);
  }
}
