// Talking to the server this page came from.

import { EventParser } from "./sse.js";

const KEY = "gemtp.key";

/** What went wrong, as a sentence for the user. `kind`: "lost", "key", "busy" or "refused". */
export class Trouble extends Error {
  constructor(kind, sentence) {
    super(sentence);
    this.kind = kind;
  }
}

/** The API key, kept until the tab is closed. */
export const key = {
  get() {
    try {
      return sessionStorage.getItem(KEY) ?? this.held;
    } catch {
      return this.held;
    }
  },
  set(value) {
    this.held = value;
    try {
      sessionStorage.setItem(KEY, value);
    } catch {
      // Kept until the page is left.
    }
  },
  held: null,
};

async function ask(url, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(url, { ...options, headers, redirect: "error", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("lost", `The server at ${location.host} does not answer.`);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let said = "";
  try {
    const { error } = JSON.parse(await response.text());
    said = typeof error === "string" ? error : (error?.message ?? "");
  } catch {
    // Not the server's own words; the status has to do.
  }
  said = said && !/[.!?]$/.test(said) ? `${said}.` : said;
  const { status } = response;
  if (status === 401 || status === 403) return new Trouble("key", said || "The server requires an API key.");
  if (status === 503 || status === 429) {
    const wait = Number(response.headers.get("Retry-After")) || null;
    const when = wait ? `Try again in ${wait} s.` : "";
    return new Trouble("busy", ["The server is busy.", said, when].filter(Boolean).join(" "));
  }
  return new Trouble("refused", said || `The server refused this (HTTP status ${status}).`);
}

/** What the server is: see /props. */
export async function properties() {
  return (await ask("props")).json();
}

/** Throws Trouble unless the key is the right one. */
export async function tryKey() {
  await ask("v1/models");
}

export async function isHealthy() {
  try {
    return (await fetch("health", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/** The chunks of a streamed answer. Ends with the stream; throws Trouble, or AbortError when stopped. */
export async function* stream({ url, body }, signal) {
  const response = await ask(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const parser = new EventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) throw new Trouble("lost", "The connection broke before the answer was complete.");
      for (const data of parser.feed(value)) {
        if (data === "[DONE]") return;
        yield chunk(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("lost", "The connection broke before the answer was complete.");
  }
}

function chunk(data) {
  let parsed;
  try {
    parsed = JSON.parse(data);
  } catch {
    throw new Trouble("refused", "The server sent something that this page does not understand.");
  }
  if (parsed.error) {
    throw new Trouble("refused", parsed.error.message ?? "The server stopped with an unknown error.");
  }
  return parsed;
}
