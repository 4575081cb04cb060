// Files to conversations: the JSON of Export, and messages as OpenAI's protocol and `gemtp chat` write them.
// A file that is damaged or something else is refused with a sentence.

import { SAMPLING } from "./sampling.js";
import { Conversation, newId } from "./store.js";
import { Trace } from "./trace.js";

export const LARGEST_FILE = 32 << 20; // bytes
const MOST_MESSAGES = 20000;
const FORMAT = "gemtp conversation";

class Damage extends Error {}

/** The conversation in a file's text; throws an Error with a sentence that names the file. */
export function conversationIn(name, text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error(`“${name}” is not JSON. Only the JSON that Export or “gemtp chat” writes can be imported.`);
  }
  const messages = Array.isArray(data) ? data : data?.messages;
  try {
    if (data?.format === FORMAT) return exported(data);
    if (Array.isArray(messages)) return fromMessages(messages, data.title);
  } catch (error) {
    if (!(error instanceof Damage)) throw error;
    throw new Error(`“${name}” cannot be imported: ${error.message}.`, { cause: error });
  }
  throw new Error(`“${name}” is no conversation. The JSON that Export or “gemtp chat” writes can be imported.`);
}

function need(condition, sentence) {
  if (!condition) throw new Damage(sentence);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// ------------------------------------------------------------ what Export writes

function exported(data) {
  need(data.version === 1, "it was written by a newer page");
  need(isObject(data.nodes) && isObject(data.active), "it has no messages");
  const nodes = Object.entries(data.nodes);
  need(nodes.length && nodes.length <= MOST_MESSAGES, nodes.length ? "it has too many messages" : "it has no messages");
  const known = new Map(nodes);
  const ids = new Map(nodes.map(([id]) => [id, newId()]));
  const made = nodes.map(([id, node]) => imported(id, node, known, ids));
  checkRoots(known);
  const active = {};
  for (const [parent, child] of Object.entries(data.active)) {
    const belongs = known.has(child) && (known.get(child).parent ?? "root") === parent;
    need(belongs, "it shows a message that is not there");
    active[parent === "root" ? "root" : ids.get(parent)] = ids.get(child);
  }
  return new Conversation({
    title: textOr(data.title, "").slice(0, 200),
    mode: data.mode === "completion" ? "completion" : "chat",
    system: typeof data.system === "string" ? data.system : null,
    changed: Date.now(),
    nodes: Object.fromEntries(made.map((node) => [node.id, node])),
    active,
  });
}

function imported(id, node, known, ids) {
  need(isObject(node) && typeof node.content === "string", "a message has no text");
  need(node.role === "user" || node.role === "assistant", "a message is neither a question nor an answer");
  const parent = node.parent ?? null;
  need(parent === null || isObject(known.get(parent)), "a message answers one that is not there");
  need(node.role === "user" || known.get(parent)?.role === "user", "an answer has no question");
  const made = { id: ids.get(id), parent: parent === null ? null : ids.get(parent), role: node.role, content: node.content };
  if (node.role === "user") return made;
  need(node.trace === undefined || node.trace === null || Trace.isPacked(node.trace), "the tokens of an answer are damaged");
  return {
    ...made,
    reasoning: textOr(node.reasoning, ""),
    system: textOr(node.system, ""),
    thinking: node.thinking === true,
    continued: node.continued === true,
    options: isObject(node.options) ? optionsOf(node.options) : {},
    trace: node.trace ?? new Trace().pack(),
    usage: figures(node.usage),
    timings: figures(node.timings),
    stats: figures(node.stats),
    finish: textOr(node.finish, null),
    trouble: textOr(node.trouble, null),
  };
}

/** Every message leads back to a first one: none is its own predecessor. */
function checkRoots(known) {
  const sound = new Set();
  for (const [id] of known) {
    const way = new Set();
    for (let at = id; at !== null && !sound.has(at); at = known.get(at).parent ?? null) {
      need(!way.has(at), "its messages go in a circle");
      way.add(at);
    }
    for (const at of way) sound.add(at);
  }
}

/** The options that this page sends; others could change what is asked without being seen. */
function optionsOf(options) {
  const { draft, stop, response_format: format } = options;
  const numbers = [...Object.keys(SAMPLING), "seed", "max_tokens"].filter((name) => Number.isFinite(options[name]));
  return {
    ...Object.fromEntries(numbers.map((name) => [name, options[name]])),
    draft: Number.isInteger(draft) ? draft : "auto",
    ...(Array.isArray(stop) && stop.every((text) => typeof text === "string") ? { stop } : {}),
    ...(isObject(format) ? { response_format: format } : {}),
  };
}

function textOr(value, other) {
  return typeof value === "string" ? value : other;
}

function figures(value) {
  return isObject(value) ? Object.fromEntries(Object.entries(value).filter(([, figure]) => Number.isFinite(figure))) : null;
}

// ------------------------------------------------------------ messages

function fromMessages(messages, title) {
  need(messages.length && messages.length <= MOST_MESSAGES, messages.length ? "it has too many messages" : "it has no messages");
  const conversation = new Conversation({ title: textOr(title, "").slice(0, 200) });
  let last = null;
  messages.forEach((message, k) => {
    need(isObject(message), `message ${k + 1} is none`);
    const { role } = message;
    need(role !== "tool" && !message.tool_calls?.length, "it has calls of tools, which this page cannot show");
    const content = contentOf(message, k);
    if (role === "system" || role === "developer") {
      need(k === 0, "it has a system prompt in the middle");
      conversation.system = content;
    } else if (role === "user") {
      last = conversation.add(last?.id ?? null, { role, content });
    } else {
      need(role === "assistant" || role === "model", `message ${k + 1} has the role ${JSON.stringify(role)?.slice(0, 40)}`);
      need(last?.role === "user", "an answer has no question");
      const reasoning = textOr(message.reasoning_content ?? message.reasoning ?? message.thinking, "");
      last = conversation.add(last.id, { role: "assistant", content, reasoning, options: {}, trace: null, finish: "stop" });
    }
  });
  need(last, "it has no question");
  return conversation;
}

function contentOf({ content }, k) {
  if (content === null || content === undefined) return "";
  if (typeof content === "string") return content;
  need(Array.isArray(content), `message ${k + 1} has no text`);
  return content.map((part) => {
    need(part?.type === "text" && typeof part.text === "string", `message ${k + 1} has more than text`);
    return part.text;
  }).join("");
}
