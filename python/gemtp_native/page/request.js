// What is asked of the server: pure functions of settings and conversation.

import { SAMPLING } from "./sampling.js";

export const DEFAULTS = {
  system: "",
  ...Object.fromEntries(Object.keys(SAMPLING).map((name) => [name, null])), // null: the server's default
  stop: [],
  seed: null, // null: a new one for every answer
  max_tokens: 512,
  draft: "auto",
  thinking: false,
  schema: "",
  tints: true,
  mode: null, // of new conversations: "chat", "completion"; null: what the model was made for
};

/** The number in a field, or null for an empty one; throws a sentence for what is none. */
export function readNumber(text, name, low, high, whole = false) {
  if (text.trim() === "") return null;
  const value = Number(text.trim().replace(",", "."));
  if (!Number.isFinite(value) || value < low || value > high || (whole && !Number.isInteger(value))) {
    throw new RangeError(`${name} is a ${whole ? "whole " : ""}number from ${low} to ${high}.`);
  }
  return value;
}

/** The JSON schema in a field, or null for an empty one; throws a sentence for what is none. */
export function readSchema(text) {
  if (text.trim() === "") return null;
  let schema;
  try {
    schema = JSON.parse(text);
  } catch (error) {
    throw new SyntaxError(`The schema is not JSON: ${error.message}.`);
  }
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
    throw new SyntaxError('The schema is a JSON object, as {"type": "object", …}.');
  }
  return schema;
}

/** The sampling options of a request; a seed is always among them, so that the answer can be had again. */
export function options(settings, randomSeed) {
  const chosen = { max_tokens: settings.max_tokens ?? DEFAULTS.max_tokens, draft: settings.draft };
  for (const name of Object.keys(SAMPLING)) if (settings[name] !== null) chosen[name] = settings[name];
  if (settings.stop.length) chosen.stop = settings.stop;
  chosen.seed = settings.seed ?? randomSeed;
  const schema = readSchema(settings.schema);
  if (schema) {
    chosen.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
  }
  return chosen;
}

/**
 * The request for the answer behind `path`, messages from the first on; if `path` ends with an answer, for what follows in it.
 * @param mode "chat" or "completion": there, the text of all messages is the prompt.
 */
export function request(mode, path, chosen, { system = "", thinking = false, model } = {}) {
  const last = path.at(-1);
  const goesOn = last?.role === "assistant";
  const common = { model, stream: true, stream_options: { include_usage: true }, return_tokens: true, ...chosen };
  if (mode === "completion") {
    return { url: "v1/completions", body: { prompt: path.map((node) => node.content).join(""), ...common } };
  }
  const messages = path
    .filter((node) => node.role === "user" || node.content !== "" || node === last)
    .map((node) => ({ role: node.role, content: node.content }));
  if (goesOn && last.reasoning && thinking) messages.at(-1).reasoning_content = last.reasoning;
  if (system.trim() !== "") messages.unshift({ role: "system", content: system });
  return { url: "v1/chat/completions", body: { messages, thinking, ...(goesOn ? { continue_final_message: true } : {}), ...common } };
}

/** A seed that every JSON reader can hold. */
export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
