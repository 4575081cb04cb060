// The settings dialog.

import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { DEFAULTS, readNumber, readSchema } from "./request.js";
import { defaultsText, MAIN, PENALTIES, readStops, rounded, SAMPLING, stopsText } from "./sampling.js";
import { THEMES, setTheme, theme } from "./theme.js";

export const DRAFTS = ["auto", ...Array.from({ length: 16 }, (_, k) => String(k))];

export function draftName(draft) {
  return { auto: "Auto", 0: "Off" }[draft] ?? draft;
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
  const form = h("form", { class: "settings", novalidate: true });
  const structured = props?.structured !== false;
  const fields = h("div", { class: "fields" },
    textField("system", "System prompt", settings.system, "You are …", { hint: "Instructions at the beginning of every chat." }),
    thinkingField(settings),
    h("div", { class: "pair" },
      numberField("max_tokens", "Maximum tokens", settings.max_tokens, String(DEFAULTS.max_tokens), "Per answer."),
      numberField("seed", "Seed", settings.seed, "random", "The same seed gives the same text.")),
    samplingFields(settings, props),
    textField("schema", "JSON schema for the answer", settings.schema, '{"type": "object", "properties": { … }}', {
      rows: 5,
      class: "code-field",
      disabled: !structured,
      hint: structured
        ? "The answer is then JSON that follows the schema."
        : "This server was installed without structured output. To add it: pip install 'gemtp-native[grammar]'.",
    }),
    themeField());
  form.append(fields,
    h("div", { class: "row" },
      h("button", { type: "button", class: "button danger", onclick: () => { dialog.close(); onclear(); } }, "Delete all chats …"),
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

/** The sampling options: the four that all know, and the others folded, unless one of them is set. */
function samplingFields(settings, props) {
  const usual = props?.default_generation_settings ?? {};
  const number = (name) => {
    const { label, hint } = SAMPLING[name];
    return numberField(name, label, settings[name], Number.isFinite(usual[name]) ? String(rounded(usual[name])) : "default", hint);
  };
  const more = [...PENALTIES, "stop"].some((name) => settings[name] !== null && settings[name].length !== 0);
  return h("fieldset", { class: "sampling", "aria-describedby": "sampling-defaults" },
    h("legend", {}, "Sampling"),
    h("p", { class: "fine", id: "sampling-defaults" }, defaultsText(props)),
    h("div", { class: "pair" }, MAIN.map(number)),
    h("details", { open: more }, h("summary", {}, "Penalties and stop texts"),
      h("div", { class: "pair" }, PENALTIES.map(number)),
      textField("stop", "Stop texts", stopsText(settings.stop), "One per line", {
        hint: "The answer ends before the first of them. \\n stands for a new line.", rows: 2, class: "code-field" })),
    h("button", { type: "button", class: "button", id: "reset-sampling", onclick: (event) => {
      const { elements } = event.target.form;
      for (const name of [...Object.keys(SAMPLING), "stop"]) elements[name].value = "";
      elements.temperature.focus();
    } }, "Use the defaults"));
}

function thinkingField(settings) {
  const box = h("input", { type: "checkbox", id: "set-thinking", name: "thinking" });
  box.checked = settings.thinking;
  return h("div", { class: "setting check" }, box, h("label", { for: box.id }, "Think before answering"));
}

function themeField() {
  const choices = THEMES.map((name) => {
    const radio = h("input", { type: "radio", name: "theme", value: name, id: `theme-${name}`, onchange: () => setTheme(name) });
    radio.checked = theme() === name;
    return h("span", {}, radio, h("label", { for: radio.id }, { system: "System", light: "Light", dark: "Dark" }[name]));
  });
  return h("fieldset", { class: "setting" }, h("legend", {}, "Theme"), h("div", { class: "choices" }, choices));
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
      control.closest("details")?.setAttribute("open", "");
      wrong ??= control;
    }
  };
  take("system", (text) => text);
  for (const [name, { label, low, high, whole }] of Object.entries(SAMPLING)) {
    take(name, (text) => readNumber(text, label, low, high, whole));
  }
  take("stop", readStops);
  take("seed", (text) => readNumber(text, "Seed", 0, Number.MAX_SAFE_INTEGER, true));
  take("max_tokens", (text) => readNumber(text, "Maximum tokens", 1, 1e6, true) ?? DEFAULTS.max_tokens);
  take("schema", (text) => (readSchema(text), text));
  if (form.elements.thinking) next.thinking = form.elements.thinking.checked;
  wrong?.focus();
  return wrong ? null : next;
}
