// Conversations that hold some words, in their titles or their messages.

const AROUND = 36; // units of text before the first word that was found
const LONGEST = 110;

function folded(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

const known = new WeakMap(); // conversation -> its folded texts

function foldedTexts(conversation) {
  if (!known.has(conversation)) known.set(conversation, Object.values(conversation.nodes).map((node) => folded(node.content)));
  return known.get(conversation);
}

/** Those of the conversations, as Store.list() gives them, that hold all words: [{conversation, excerpt}]; `excerpt` "" where the title has them. */
export function search(conversations, query) {
  const words = folded(query).split(/\s+/).filter(Boolean);
  if (!words.length) return conversations.map((conversation) => ({ conversation, excerpt: "" }));
  const found = [];
  for (const conversation of conversations) {
    const title = folded(conversation.title);
    const all = foldedTexts(conversation);
    if (!words.every((word) => title.includes(word) || all.some((text) => text.includes(word)))) continue;
    const word = words.find((each) => !title.includes(each));
    const k = word === undefined ? -1 : all.findIndex((text) => text.includes(word));
    found.push({ conversation, excerpt: k < 0 ? "" : excerpt(Object.values(conversation.nodes)[k].content, all[k], word) });
  }
  return found;
}

/** The text around a word. Folding moves places by a few units only, which the text around it makes up for. */
function excerpt(text, from, word) {
  const at = Math.max(from.indexOf(word) - AROUND, 0);
  const piece = text.slice(at, at + LONGEST).replace(/\s+/g, " ").trim();
  return `${at ? "…" : ""}${piece}${at + LONGEST < text.length ? "…" : ""}`;
}
