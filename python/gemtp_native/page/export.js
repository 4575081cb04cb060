// A conversation as a file.

import { openDialog } from "./dialog.js";
import { download, h } from "./dom.js";

/** The shown branch as Markdown, or in completion mode as plain text. */
export function asText(conversation) {
  const path = conversation.path();
  if (conversation.mode === "completion") return path.map((node) => node.content).join("");
  const parts = [`# ${conversation.title || "Chat"}`];
  if (conversation.system) parts.push("## System prompt", conversation.system);
  for (const { role, content } of path) parts.push(`## ${role === "user" ? "You" : "Model"}`, content);
  return `${parts.join("\n\n")}\n`;
}

/** All branches, with options, tokens and figures. */
export function asJson(conversation) {
  return `${JSON.stringify({ format: "gemtp conversation", version: 1, ...conversation }, null, 1)}\n`;
}

/** The shown branch as messages of OpenAI's protocol, which `gemtp chat --load` reads. */
export function asMessages(conversation) {
  const system = conversation.system ? [{ role: "system", content: conversation.system }] : [];
  const messages = conversation.path().map(({ role, content, reasoning }) => (
    { role, content, ...(reasoning ? { reasoning_content: reasoning } : {}) }));
  return `${JSON.stringify({ messages: [...system, ...messages] }, null, 2)}\n`;
}

export function openExport(conversation) {
  const name = (conversation.title || "conversation").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "conversation";
  const plain = conversation.mode === "completion";
  const choice = (label, hint, save) => h("button", { type: "button", class: "button choice", onclick: () => { save(); dialog.close(); } },
    h("b", {}, label), h("span", { class: "fine" }, hint));
  const dialog = openDialog("Export this chat", h("div", { class: "stack" },
    plain
      ? choice("Text", "The text, for reading.", () => download(`${name}.txt`, asText(conversation), "text/plain"))
      : choice("Markdown", "The messages as they are shown, for reading.", () => download(`${name}.md`, asText(conversation), "text/markdown")),
    choice("JSON", "All versions with settings, tokens and figures. Can be imported here.", () => download(`${name}.json`, asJson(conversation), "application/json")),
    plain ? null : choice("Messages", "The shown messages as JSON of OpenAI's API. Can be imported here and by gemtp chat.", () => download(`${name}.messages.json`, asMessages(conversation), "application/json"))),
  { name: "small" });
}
