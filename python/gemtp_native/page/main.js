// The page: what its parts do together.

import { openAbout } from "./about.js";
import { setAddress } from "./address.js";
import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { meter, usedTokens } from "./context.js";
import { byId, h, icon } from "./dom.js";
import { openExport } from "./export.js";
import { openHelp } from "./help.js";
import { Library } from "./library.js";
import { notice } from "./notice.js";
import { DEFAULTS } from "./request.js";
import { DRAFTS, draftName, openSettings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Forgetful, Store } from "./store.js";
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
  toPrompt,
  ontrouble: (trouble) => {
    if (trouble.kind === "lost" || trouble.kind === "key") connection.handle(trouble);
  },
  /** Whether another answer to the same messages would be the same text. */
  isFixed: () => {
    const temperature = app.settings.temperature ?? app.props?.default_generation_settings?.temperature;
    return app.settings.seed !== null || temperature === 0;
  },
  sayFixed: () => notice("conversation", "The answer stays the same, because the temperature is 0 or the seed is fixed.",
    ["Settings", showSettings], ["OK"]),
  storageFull: () => notice("conversation", "This browser has no room left for chats: this one is lost when the page is closed. Export it, or delete others.",
    ["Export", () => openExport(chat.conversation)], ["Dismiss"]),
};

const chat = new Chat(app);
const library = new Library(store, chat, { refresh, toPrompt });
const sidebar = new Sidebar({
  open: (id) => library.open(id),
  rename: (id, title) => library.rename(id, title),
  remove: (conversation) => library.remove(conversation),
  fresh: () => library.fresh(),
  receive: (files) => library.receive(files),
});
const connection = new Connection({
  onready: (props) => {
    const isFirst = app.props === null;
    app.props = props;
    prompt.disabled = false;
    if (!chat.conversation.path().length) chat.conversation.mode = chat.mode;
    if (isFirst && !chat.running) chat.render(); // how an answer ended depends on the context
    else refresh();
    if (!document.querySelector("dialog[open]")) toPrompt();
  },
  onaway: () => refresh(),
});

// ------------------------------------------------------------ what is shown

function refresh() {
  const { conversation } = chat;
  const empty = !conversation.path().length;
  const running = Boolean(chat.running);
  if (!empty) setAddress(conversation.id, { replace: true });
  sidebar.show(store.list(), conversation);
  byId("title").textContent = conversation.title || "New chat";
  document.title = conversation.title ? `${conversation.title} – gemtp` : "gemtp";
  showModel(conversation.path());
  byId("open-export").hidden = empty;
  byId("welcome").hidden = !empty || !app.props;
  if (empty && app.props) showWelcome(app.props, conversation.mode, { use, choose: chooseMode });
  const goesOn = conversation.mode === "completion" && !empty;
  const label = conversation.mode === "completion" ? (empty ? "Text to complete" : "Add to the text, or just send to continue") : "Message";
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

/** The model's name, which opens what is known of it, and how much of its context is used. */
function showModel(path) {
  const { model, context } = app.props ?? {};
  byId("model").hidden = !model;
  byId("model").firstChild.textContent = model ?? "";
  const used = usedTokens(path);
  byId("context").replaceChildren(...(used && context ? [meter(used, context)] : []));
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
    onclear: () => library.removeAll(),
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
  KeyN: () => library.fresh(),
  KeyT: toggleTints,
  KeyR: () => chat.raceLatest(),
  KeyA: () => chat.againLatest(),
  KeyC: () => chat.proceedLatest(),
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
byId("model").addEventListener("click", () => openAbout(app.props));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is that of the conversation
  prompt.focus();
});
addEventListener("pagehide", () => chat.keep());
addEventListener("pageshow", () => { chat.isLeft = false; });

if (!app.settings.tints) toggleTints();
chat.open(chat.conversation);
library.follow();
connection.open();
