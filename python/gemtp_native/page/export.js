// A conversation as a file.

import { openDialog } from "./dialog.js";
import { download, h } from "./dom.js";

/** The shown branch as Markdown, or in completion mode as plain text. */
export function asText(conversation) {
  const path = conversation.path();
  if (conversation.mode === "completion") return path.map((node) => node.content).join("");
  const parts = [`# ${conversation.title || "Conversation"}`];
  for (const { role, content } of path) parts.push(`## ${role === "user" ? "You" : "Model"}`, content);
  return `${parts.join("\n\n")}\n`;
}

/** All branches, with options, tokens and figures. */
export function asJson(conversation) {
  return `${JSON.stringify({ format: "gemtp conversation", version: 1, ...conversation }, null, 1)}\n`;
}

export function openExport(conversation) {
  const name = (conversation.title || "conversation").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "conversation";
  const plain = conversation.mode === "completion";
  const choice = (label, hint, save) => h("button", { type: "button", class: "button choice", onclick: () => { save(); dialog.close(); } },
    h("b", {}, label), h("span", { class: "fine" }, hint));
  const dialog = openDialog("Export", h("div", { class: "stack" },
    plain
      ? choice("Text", "as it reads", () => download(`${name}.txt`, asText(conversation), "text/plain"))
      : choice("Markdown", "the messages as they are shown", () => download(`${name}.md`, asText(conversation), "text/markdown")),
    choice("JSON", "all versions, with settings, tokens and figures", () => download(`${name}.json`, asJson(conversation), "application/json"))),
  { name: "small" });
}
