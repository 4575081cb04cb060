// The settings dialog.

import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { DEFAULTS, readNumber, readSchema } from "./request.js";
import { THEMES, setTheme, theme } from "./theme.js";

export const DRAFTS = ["auto", ...Array.from({ length: 16 }, (_, k) => String(k))];

export function draftName(draft) {
  if (draft === "auto") return "auto";
  return draft === "0" ? "0 (off)" : draft;
}

function field(name, label, control, hint = null) {
  control.id = `set-${name}`;
  control.setAttribute("name", name);
  const problem = h("p", { class: "problem", id: `problem-${name}`, role: "alert" });
  const described = [hint && `hint-${name}`, problem.id].filter(Boolean).join(" ");
  control.setAttribute("aria-describedby", described);
  return h("div", { class: "setting" }, h("label", { for: control.id }, label), control,
    hint && h("p", { class: "fine", id: `hint-${name}` }, hint), problem);
}

function numberField(name, label, value, placeholder, hint) {
  const control = h("input", { type: "text", inputmode: "decimal", placeholder });
  control.value = value ?? "";
  return field(name, label, control, hint);
}

function textField(name, label, value, placeholder, { hint, rows = 3, ...more } = {}) {
  const control = h("textarea", { rows, placeholder, spellcheck: "false", ...more });
  control.value = value;
  return field(name, label, control, hint);
}

/** Opens the dialog; calls onsave with the new settings. */
export function openSettings(settings, props, { onsave, onclear }) {
  const usual = props?.default_generation_settings ?? {};
  const form = h("form", { class: "settings", novalidate: true });
  const structured = props?.structured !== false;
  form.append(
    textField("system", "System prompt", settings.system, "You are …", { hint: "Stands before every chat." }),
    h("div", { class: "pair" },
      numberField("temperature", "Temperature", settings.temperature, String(usual.temperature ?? "server's"), "0 takes the likeliest token each time."),
      numberField("top_p", "Top p", settings.top_p, String(usual.top_p ?? "server's"), "The likeliest tokens whose shares add up to it."),
      numberField("seed", "Seed", settings.seed, "new each time", "The same seed gives the same text."),
      numberField("max_tokens", "Tokens at most", settings.max_tokens, String(DEFAULTS.max_tokens), "Of one answer.")),
    thinkingField(settings),
    textField("schema", "JSON schema of the answer", settings.schema, '{"type": "object", "properties": { … }}', {
      rows: 5,
      class: "code-field",
      disabled: !structured,
      hint: structured
        ? "The answer then is JSON that follows it."
        : "This server was installed without structured output: pip install 'gemtp-native[grammar]' there.",
    }),
    themeField(),
    h("div", { class: "row" },
      h("button", { type: "button", class: "button danger", onclick: () => { dialog.close(); onclear(); } }, "Delete all …"),
      h("span", { class: "gap" }),
      h("button", { type: "submit", class: "button strong" }, "Save")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const next = read(form, settings);
    if (!next) return;
    dialog.close();
    onsave(next);
  });
  const dialog = openDialog("Settings", form, { name: "settings-dialog" });
  return dialog;
}

function thinkingField(settings) {
  const box = h("input", { type: "checkbox", id: "set-thinking", name: "thinking" });
  box.checked = settings.thinking;
  return h("div", { class: "setting check" }, box, h("label", { for: box.id }, "Let it think before it answers"));
}

function themeField() {
  const choices = THEMES.map((name) => {
    const radio = h("input", { type: "radio", name: "theme", value: name, id: `theme-${name}`, onchange: () => setTheme(name) });
    radio.checked = theme() === name;
    return h("span", {}, radio, h("label", { for: radio.id }, { system: "as the system", light: "light", dark: "dark" }[name]));
  });
  return h("fieldset", { class: "setting" }, h("legend", {}, "Light or dark"), h("div", { class: "choices" }, choices));
}

/** The settings in the form; null with sentences beside the fields that are wrong. */
function read(form, settings) {
  const next = { ...settings };
  let wrong = null;
  const take = (name, parse) => {
    const control = form.elements[name];
    if (!control || control.disabled) return;
    const problem = form.querySelector(`#problem-${name}`);
    problem.textContent = "";
    control.removeAttribute("aria-invalid");
    try {
      next[name] = parse(control.value);
    } catch (error) {
      problem.textContent = error.message;
      control.setAttribute("aria-invalid", "true");
      wrong ??= control;
    }
  };
  take("system", (text) => text);
  take("temperature", (text) => readNumber(text, "Temperature", 0, 100));
  take("top_p", (text) => readNumber(text, "Top p", 0, 1));
  take("seed", (text) => readNumber(text, "The seed", 0, Number.MAX_SAFE_INTEGER, true));
  take("max_tokens", (text) => readNumber(text, "The limit", 1, 1e6, true) ?? DEFAULTS.max_tokens);
  take("schema", (text) => (readSchema(text), text));
  if (form.elements.thinking) next.thinking = form.elements.thinking.checked;
  wrong?.focus();
  return wrong ? null : next;
}
