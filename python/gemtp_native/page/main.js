// The page: what its parts do together.

import { Chat } from "./chat.js";
import { confirmDialog } from "./dialog.js";
import { Connection, notice, clearNotice } from "./connection.js";
import { byId, h, icon } from "./dom.js";
import { openExport } from "./export.js";
import { openHelp } from "./help.js";
import { DEFAULTS } from "./request.js";
import { DRAFTS, draftName, openSettings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Conversation, Forgetful, Store } from "./store.js";
import { showWelcome } from "./welcome.js";

function storage() {
  try {
    localStorage.setItem("gemtp.try", "1");
    localStorage.removeItem("gemtp.try");
    return localStorage;
  } catch {
    return new Forgetful();
  }
}

const store = new Store(storage());
const prompt = byId("prompt");
const send = byId("send");
const byTouch = matchMedia("(pointer: coarse)");

const app = {
  store,
  settings: store.settings(DEFAULTS),
  props: null,
  onchange: refresh,
  ontrouble: (trouble) => {
    if (trouble.kind === "lost" || trouble.kind === "key") connection.handle(trouble);
  },
  /** Whether another answer to the same messages would be the same text. */
  isFixed: () => {
    const temperature = app.settings.temperature ?? app.props?.default_generation_settings?.temperature;
    return app.settings.seed !== null || temperature === 0;
  },
  sayFixed: () => notice("The text is the same again: the temperature is 0, or the seed is fixed.",
    ["Settings", () => { clearNotice(); showSettings(); }], ["All right", clearNotice]),
  storageFull: () => notice("This browser has no room left for conversations: this one is lost when the page is closed. Export it, or delete others.",
    ["Export", () => openExport(chat.conversation)], ["Go on", clearNotice]),
};

const chat = new Chat(app);
const sidebar = new Sidebar({ open: openConversation, remove: removeConversation, fresh: newConversation });
const connection = new Connection({
  onready: (props) => {
    app.props = props;
    prompt.disabled = false;
    if (!chat.conversation.path().length) chat.conversation.mode = chat.mode;
    refresh();
    if (!document.querySelector("dialog[open]")) toPrompt();
  },
  onaway: () => refresh(),
});

// ------------------------------------------------------------ conversations

function newConversation() {
  chat.open(new Conversation({ mode: chat.mode }));
  toPrompt();
}

function openConversation(id) {
  const found = store.load(id);
  if (found) chat.open(found);
  else refresh();
  toPrompt();
}

async function removeConversation(conversation) {
  const name = conversation.title || "Untitled";
  if (!(await confirmDialog("Delete this conversation?", `“${name}” is deleted for good.`, "Delete it"))) return;
  store.delete(conversation.id);
  if (conversation.id === chat.conversation.id) newConversation();
  else refresh();
  byId("new").focus();
}

async function removeAll() {
  const all = store.list();
  if (!(await confirmDialog("Delete all conversations?", `All ${all.length} are deleted for good.`, "Delete them"))) return;
  for (const { id } of all) store.delete(id);
  newConversation();
}

// ------------------------------------------------------------ what is shown

function refresh() {
  const { conversation } = chat;
  const empty = !conversation.path().length;
  const running = Boolean(chat.running);
  sidebar.show(store.list(), conversation);
  byId("title").textContent = conversation.title || "New conversation";
  document.title = conversation.title ? `${conversation.title} – gemtp` : "gemtp";
  byId("model").textContent = app.props?.model ?? "";
  byId("open-export").hidden = empty;
  byId("welcome").hidden = !empty || !app.props;
  if (empty && app.props) showWelcome(app.props, conversation.mode, { use, choose: chooseMode });
  const goesOn = conversation.mode === "completion" && !empty;
  const label = conversation.mode === "completion" ? (empty ? "Begin a text" : "Go on with the text, or just send") : "Message";
  prompt.placeholder = label;
  byId("prompt-label").textContent = label;
  send.disabled = !app.props || (!running && prompt.value.trim() === "" && !goesOn);
  if (send.dataset.state !== String(running)) {
    send.dataset.state = String(running);
    send.replaceChildren(icon(running ? "stop" : "send"));
    send.setAttribute("aria-label", running ? "Stop" : "Send");
    send.title = running ? "Stop (Esc)" : "Send (Enter)";
  }
}

function chooseMode(mode) {
  app.settings.mode = mode;
  store.saveSettings(app.settings);
  chat.conversation.mode = mode;
  refresh();
  byId("welcome").querySelector("[aria-pressed=true]").focus();
}

/** By touch the focus would open the keyboard over the page. */
function toPrompt() {
  if (!byTouch.matches) prompt.focus();
}

function use(text) {
  prompt.value = text;
  grow();
  prompt.focus();
}

function grow() {
  prompt.style.setProperty("height", "auto");
  prompt.style.setProperty("height", `${Math.min(prompt.scrollHeight, innerHeight * 0.4)}px`);
  refreshSend();
}

function refreshSend() {
  const goesOn = chat.conversation.mode === "completion" && chat.conversation.path().length > 0;
  send.disabled = !app.props || (!chat.running && prompt.value.trim() === "" && !goesOn);
}

function toggleTints() {
  const off = document.documentElement.dataset.tints !== "off";
  if (off) document.documentElement.dataset.tints = "off";
  else delete document.documentElement.dataset.tints;
  byId("tints").setAttribute("aria-pressed", String(!off));
  app.settings.tints = !off;
  store.saveSettings(app.settings);
}

function showSettings() {
  openSettings(app.settings, app.props, {
    onsave: (settings) => {
      app.settings = settings;
      if (!store.saveSettings(settings)) app.storageFull();
    },
    onclear: removeAll,
  });
}

// ------------------------------------------------------------ the message field

function submit() {
  if (chat.running) {
    chat.stop();
  } else if (app.props && chat.send(prompt.value)) {
    prompt.value = "";
    grow();
  }
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
prompt.addEventListener("input", grow);
prompt.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  // A keyboard on glass has no Shift + Enter: there Enter is a new line, and the button sends.
  if (event.key === "Enter" && !event.shiftKey && !event.altKey && !byTouch.matches) {
    event.preventDefault();
    if (!chat.running) submit();
  } else if (event.key === "ArrowUp" && prompt.value === "") {
    event.preventDefault();
    chat.editLatest();
  }
});

const draft = byId("draft");
draft.append(...DRAFTS.map((value) => h("option", { value }, draftName(value))));
draft.value = String(app.settings.draft);
draft.addEventListener("change", () => {
  app.settings.draft = draft.value === "auto" ? "auto" : Number(draft.value);
  store.saveSettings(app.settings);
});

// ------------------------------------------------------------ keys and buttons

const SHORTCUTS = {
  KeyN: newConversation,
  KeyT: toggleTints,
  KeyR: () => chat.raceLatest(),
  KeyA: () => chat.againLatest(),
  KeyS: showSettings,
};

document.addEventListener("keydown", (event) => {
  if (event.isComposing || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "Escape" && chat.running) {
    event.preventDefault();
    chat.stop();
  } else if (event.altKey && !event.ctrlKey && !event.metaKey && SHORTCUTS[event.code]) {
    event.preventDefault();
    SHORTCUTS[event.code]();
  } else if (!typing && !event.altKey && !event.ctrlKey && !event.metaKey && (event.key === "/" || event.key === "?")) {
    event.preventDefault();
    if (event.key === "/") prompt.focus();
    else openHelp();
  }
});

byId("tints").addEventListener("click", toggleTints);
byId("open-settings").addEventListener("click", showSettings);
byId("open-help").addEventListener("click", openHelp);
byId("open-export").append(icon("save"));
byId("open-export").addEventListener("click", () => openExport(chat.conversation));
byId("to-end").append(icon("down"));
// Another tab saved or deleted a conversation.
addEventListener("storage", refresh);

if (!app.settings.tints) toggleTints();
newConversation();
connection.open();
