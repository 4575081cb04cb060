// The page's modules that need no browser: events, traces, requests, conversations, the race's verdict.
import assert from "node:assert/strict";
import { test } from "node:test";
import { EventParser } from "../../python/gemtp_native/page/sse.js";
import { Trace } from "../../python/gemtp_native/page/trace.js";
import * as requests from "../../python/gemtp_native/page/request.js";
import { Conversation, Forgetful, Store, titleOf } from "../../python/gemtp_native/page/store.js";
import { duration, progressAt, verdict } from "../../python/gemtp_native/page/race.js";
import { number, seconds } from "../../python/gemtp_native/page/figures.js";
import { isFull, usedTokens } from "../../python/gemtp_native/page/context.js";
import { asJson, asMessages, asText } from "../../python/gemtp_native/page/export.js";
import { conversationIn } from "../../python/gemtp_native/page/import.js";
import * as sampling from "../../python/gemtp_native/page/sampling.js";
import { search } from "../../python/gemtp_native/page/search.js";

test("events come out whole, wherever the stream is cut", () => {
  const text = 'data: {"a": 1}\r\n\r\n: a comment\ndata:one\ndata: two\n\nevent: x\n\ndata: \u00e9\r\rdata: [DONE]\n\n';
  const whole = new EventParser().feed(text);
  assert.deepEqual(whole, ['{"a": 1}', "one\ntwo", "\u00e9", "[DONE]"]);
  for (let size = 1; size < 12; size++) {
    const parser = new EventParser();
    const found = [];
    for (let i = 0; i < text.length; i += size) found.push(...parser.feed(text.slice(i, i + size)));
    assert.deepEqual(found, whole, `pieces of ${size}`);
  }
  assert.deepEqual(new EventParser().feed("data: unfinished\n"), []);
});

const ROUNDS = [
  { t: 0.1, drafted: 3, tokens: [{ text: "Hm", source: "target", kind: "reasoning" }] },
  { t: 0.2, drafted: 3, tokens: [
    { text: "I ", source: "drafter", step: 1, kind: "content" },
    { text: "", source: "drafter", step: 2, kind: "content" },
    { text: "\u{1f600}", source: "lookup", step: 3, kind: "content" },
    { text: "!", source: "target", step: 0, kind: "content" },
  ] },
  { t: 0.4, drafted: 0, tokens: [{ text: "<end>", source: "target", kind: "control" }] },
];

function traced() {
  const trace = new Trace();
  for (const round of ROUNDS) trace.add(round);
  return trace;
}

test("a trace counts its tokens", () => {
  const trace = traced();
  assert.deepEqual(trace.counts(), { target: 3, drafter: 2, lookup: 1, grammar: 0, steps: [1, 1] });
  assert.deepEqual(trace.spelled("content").map(({ at, text }) => [at, text]), [[0, "I "], [2, "\u{1f600}"], [4, "!"]]);
  assert.equal(trace.acceptance(), 0.5);
  assert.equal(Math.round(trace.rate()), 17); // 5 tokens in 0.3 s
});

test("a trace survives being stored", () => {
  const trace = traced();
  const texts = { reasoning: "Hm", content: "I \u{1f600}!" };
  const again = Trace.unpack(JSON.parse(JSON.stringify(trace.pack())), texts);
  const plain = (t) => t.tokens.map(({ text, ...rest }) => ({ ...rest, text: rest.kind === "control" ? "" : text }));
  assert.deepEqual(plain(again), plain(trace));
  assert.deepEqual(again.rounds, trace.rounds);
});

test("a server that says less is no problem", () => {
  const trace = new Trace();
  trace.add({ tokens: [{ text: "a" }, { text: "b", source: "somewhere" }] });
  assert.equal(trace.acceptance(), null);
  assert.equal(trace.rate(), null);
  assert.equal(trace.counts().target, 2);
});

test("requests", () => {
  const { DEFAULTS, options, request } = requests;
  const path = [{ role: "user", content: "a" }, { role: "assistant", content: "b" }, { role: "assistant", content: "" }, { role: "user", content: "c" }];
  const chosen = options({ ...DEFAULTS, temperature: 0.5, schema: '{"type": "object"}' }, 42);
  assert.deepEqual(chosen, {
    max_tokens: 512, draft: "auto", temperature: 0.5, seed: 42,
    response_format: { type: "json_schema", json_schema: { name: "answer", schema: { type: "object" } } },
  });
  const chat = request("chat", path, chosen, { system: "be brief" });
  assert.equal(chat.url, "v1/chat/completions");
  assert.deepEqual(chat.body.messages.map(({ role, content }) => role[0] + content), ["sbe brief", "ua", "ab", "uc"]);
  assert.ok(chat.body.stream && chat.body.return_tokens);
  const completion = request("completion", path, options({ ...DEFAULTS, seed: 7 }, 42));
  assert.equal(completion.body.prompt, "abc");
  assert.equal(completion.body.seed, 7);
  assert.ok(!("messages" in completion.body) && !("thinking" in completion.body));
});

test("fields of the settings", () => {
  const { readNumber, readSchema } = requests;
  assert.equal(readNumber(" ", "X", 0, 1), null);
  assert.equal(readNumber("0,5", "X", 0, 1), 0.5);
  for (const wrong of ["2", "-1", "x", "NaN", "1e999"]) {
    assert.throws(() => readNumber(wrong, "Top p", 0, 1), /^RangeError: Top p is a number from 0 to 1\.$/);
  }
  assert.throws(() => readNumber("1.5", "The seed", 0, 9, true), /whole number/);
  assert.equal(readSchema(""), null);
  assert.throws(() => readSchema("{"), /not JSON/);
  for (const wrong of ["[]", "null", "3", '"x"']) assert.throws(() => readSchema(wrong), /JSON object/);
});

test("branches of a conversation", () => {
  const conversation = new Conversation();
  const one = conversation.add(null, { role: "user", content: "first line\nsecond" });
  const two = conversation.add(one.id, { role: "assistant", content: "A" });
  const again = conversation.add(one.id, { role: "assistant", content: "B" });
  const edited = conversation.add(null, { role: "user", content: "other" });
  assert.equal(conversation.title, "first line");
  assert.deepEqual(conversation.path(), [edited]);
  conversation.turn(edited, -1);
  assert.deepEqual(conversation.path(), [one, again]);
  conversation.turn(again, -1);
  assert.deepEqual(conversation.path(), [one, two]);
  conversation.turn(two, -1);
  assert.deepEqual(conversation.path(), [one, two], "there is none before the first");
  assert.deepEqual(conversation.pathTo(again), [one, again]);
  conversation.remove(two);
  assert.deepEqual(conversation.path(), [one, again]);
  conversation.remove(one);
  assert.deepEqual(Object.values(conversation.nodes), [edited]);
});

test("conversations are kept, and what is broken is left alone", () => {
  const storage = new Forgetful();
  const store = new Store(storage);
  const conversation = new Conversation({ changed: 5 });
  conversation.add(null, { role: "user", content: "hello" });
  assert.equal(store.save(conversation), "saved");
  store.save(new Conversation({ id: "older", changed: 1 }));
  storage.setItem("gemtp.conversation.broken", "{");
  storage.setItem("gemtp.conversation.odd", '{"nodes": 3}');
  storage.setItem("of another program", "x");
  assert.deepEqual(store.list().map(({ id }) => id), [conversation.id, "older"]);
  assert.deepEqual(store.load(conversation.id).path(), conversation.path());
  store.delete(conversation.id);
  assert.equal(store.load(conversation.id), null);
  assert.equal(storage.getItem("gemtp.conversation.broken"), "{");
});

test("a full storage gives up traces before texts", () => {
  class Small extends Forgetful {
    setItem(key, value) {
      let size = value.length;
      for (let i = 0; i < this.length; i++) if (this.key(i) !== key) size += this.getItem(this.key(i)).length;
      if (size > 3000) throw new DOMException("full", "QuotaExceededError");
      super.setItem(key, value);
    }
  }
  const store = new Store(new Small());
  const make = (id, changed) => {
    const conversation = new Conversation({ id, changed });
    conversation.add(null, { role: "user", content: "hi", trace: "x".repeat(1200) });
    return conversation;
  };
  assert.equal(store.save(make("a", 1)), "saved");
  assert.equal(store.save(make("b", 2)), "saved");
  assert.equal(store.save(make("c", 3)), "thinned");
  assert.equal(store.load("a").path()[0].trace, undefined);
  assert.ok(store.load("b").path()[0].trace);
  const big = new Conversation({ id: "d", changed: 4 });
  big.add(null, { role: "user", content: "y".repeat(5000) });
  assert.equal(store.save(big), "full");
});

test("settings of an older page are completed, strange ones dropped", () => {
  const storage = new Forgetful();
  const store = new Store(storage);
  assert.deepEqual(store.settings({ a: 1 }), { a: 1 });
  storage.setItem("gemtp.settings", '{"a": 2, "gone": 3}');
  assert.deepEqual(store.settings({ a: 1, b: 4 }), { a: 2, b: 4 });
  storage.setItem("gemtp.settings", "nonsense");
  assert.deepEqual(store.settings({ a: 1 }), { a: 1 });
});

function raced(content, times) {
  const trace = new Trace();
  for (const t of times) trace.add({ t, tokens: [{ text: "x", kind: "content" }] });
  return { content, reasoning: "", trace, times: times.map((_, i) => ({ content: i + 1 })) };
}

test("the race", () => {
  const plain = raced("abcd", [1, 2, 3, 4]);
  const drafted = raced("abcd", [5, 6.5]);
  assert.equal(duration(plain), 3);
  assert.deepEqual(verdict(plain, drafted), { equal: true, bytes: 4, same: 5, plain: 3, drafted: 1.5, ratio: 2 });
  const other = verdict(plain, raced("abXd", [0, 1]));
  assert.ok(!other.equal && other.same === 3);
  assert.ok(!verdict(plain, raced("abcde", [0, 1])).equal);
  assert.deepEqual(progressAt(plain, 1.5), { content: 2, tokens: 2, done: false });
  assert.deepEqual(progressAt(plain, 3), { content: 4, tokens: 4, done: true });
  assert.equal(verdict(raced("a", [0]), raced("a", [0])).ratio, null);
});

test("figures", () => {
  assert.deepEqual([1234.5, 12.34, 3, 0.123, null, NaN].map(number), ["1,235", "12.3", "3", "0.12", "–", "–"]);
  assert.deepEqual([0.0123, 0.9999, 61].map(seconds), ["12 ms", "1.00 s", "61 s"].map((s) => s.replace("1.00", number(0.9999))));
  assert.equal(titleOf(`${"long ".repeat(30)}\nx`).length <= 60, true);
});

test("exports", () => {
  const conversation = new Conversation();
  const user = conversation.add(null, { role: "user", content: "q" });
  conversation.add(user.id, { role: "assistant", content: "a" });
  assert.equal(asText(conversation), "# q\n\n## You\n\nq\n\n## Model\n\na\n");
  assert.deepEqual(new Conversation(JSON.parse(asJson(conversation))).path(), conversation.path());
  conversation.mode = "completion";
  assert.equal(asText(conversation), "qa");
});

const OWN = () => {
  const conversation = new Conversation({ title: "T", system: "S" });
  const user = conversation.add(null, { role: "user", content: "q" });
  conversation.add(user.id, { role: "assistant", content: "a", options: { seed: 1 }, trace: traced().pack(), usage: { prompt_tokens: 3 } });
  conversation.add(user.id, { role: "assistant", content: "b", reasoning: "r", finish: "length", trace: null });
  return conversation;
};

test("imports of exports", () => {
  const conversation = OWN();
  const again = conversationIn("x.json", asJson(conversation));
  const plain = (one) => one.path().map(({ role, content, reasoning }) => [role, content, reasoning ?? ""]);
  assert.deepEqual(plain(again), plain(conversation));
  assert.notEqual(again.id, conversation.id, "a copy beside the other");
  const [user, answer] = again.path();
  assert.deepEqual(again.siblings(answer).map(({ content }) => content), ["a", "b"]);
  assert.deepEqual([again.title, again.system, user.parent, answer.finish], ["T", "S", null, "length"]);
  const messages = conversationIn("x.json", asMessages(conversation));
  assert.deepEqual(plain(messages), plain(conversation));
  assert.equal(messages.system, "S");
  assert.equal(conversationIn("x", JSON.stringify([{ role: "user", content: "hello" }])).title, "hello");
});

test("damaged and foreign files are refused with a sentence", () => {
  const change = (make) => {
    const data = JSON.parse(asJson(OWN()));
    const [user, a, b] = Object.keys(data.nodes);
    make(data, { user: data.nodes[user], a: data.nodes[a], b: data.nodes[b], ids: [user, a, b] });
    return JSON.stringify(data);
  };
  const messages = (...list) => JSON.stringify({ messages: list });
  const ask = { role: "user", content: "q" };
  for (const [text, sentence] of [
    ["", /is not JSON/], ["{", /is not JSON/], ["[".repeat(200_000), /is not JSON|no conversation/], ["3", /no conversation/], ["null", /no conversation/], ["{}", /no conversation/],
    [change((data) => { data.version = 2; }), /newer/],
    [change((data) => { data.nodes = []; }), /no messages/],
    [change((data) => { data.nodes = {}; }), /no messages/],
    [change((data) => { data.active.root = "gone"; }), /not there/],
    [change((data, { ids }) => { data.active[ids[1]] = ids[0]; }), /not there/],
    [change((data, { ids, user }) => { user.parent = ids[1]; }), /circle/],
    [change((data, { user }) => { user.parent = "gone"; }), /not there/],
    [change((data, { user }) => { user.content = 3; }), /no text/],
    [change((data, { a }) => { a.role = "tool"; }), /neither/],
    [change((data, { a }) => { a.parent = null; }), /no question/],
    [change((data, { a }) => { a.trace.tokens.pop(); }), /damaged/],
    [change((data, { a }) => { a.trace.rounds[0][1] = 1e9; }), /damaged/],
    [change((data, { a }) => { a.trace = "x"; }), /damaged/],
    [change((data) => { data.nodes.__proto__ = null; data.nodes.x = null; }), /no text/],
    [messages(), /no messages/], [messages({ role: "system", content: "s" }), /no question/],
    [messages({ role: "assistant", content: "a" }), /no question/], [messages(ask, { role: "assistant", content: "a" }, { role: "assistant", content: "b" }), /no question/],
    [messages(ask, { role: "tool", content: "a" }), /tools/], [messages(ask, { role: "assistant", content: null, tool_calls: [{}] }), /tools/],
    [messages(3), /message 1 is none/], [messages({ role: "user", content: [{ type: "image_url" }] }), /more than text/],
    [messages(ask, { role: "system", content: "s" }), /in the middle/], [messages({ role: "x", content: "" }), /role "x"/], [messages({ role: "user", content: 3 }), /no text/],
  ]) {
    assert.throws(() => conversationIn("f.json", text), (error) => (
      error.message.startsWith("“f.json”") && error.message.endsWith(".") && sentence.test(error.message)), text.slice(0, 200));
  }
});

test("what is imported is plain data", () => {
  const data = JSON.parse(asJson(OWN()));
  const id = Object.keys(data.nodes)[1];
  Object.assign(data.nodes[id], { timings: { predicted_n: "<b>", draft_n: 2 }, finish: { x: 1 }, trouble: 3, extra: "x", options: { seed: 4, messages: [], prompt: "x", stream: false, stop: [3], top_k: "x" } });
  const found = Object.values(conversationIn("f", JSON.stringify(data)).nodes)[1];
  assert.deepEqual([found.timings, found.finish, found.trouble, found.extra, found.options], [{ draft_n: 2 }, null, null, undefined, { seed: 4, draft: "auto" }]);
});

test("a circle in the storage ends", () => {
  const conversation = new Conversation({ nodes: { a: { id: "a", parent: "b" }, b: { id: "b", parent: "a" } }, active: { root: "a", a: "b", b: "a" } });
  assert.deepEqual(conversation.path(), []);
});

test("search", () => {
  const make = (title, ...texts) => Object.assign(new Conversation({ title }), { nodes: Object.fromEntries(texts.map((content, k) => [k, { content }])) });
  const all = [make("Paris", "What is the CAFÉ?"), make("Rome", `${"x ".repeat(60)}needle ${"y ".repeat(90)}`)];
  const names = (query) => search(all, query).map(({ conversation }) => conversation.title);
  assert.deepEqual(names(""), ["Paris", "Rome"]);
  assert.deepEqual(names(" cafe  PAR "), ["Paris"]);
  assert.deepEqual(names("cafe rome"), []);
  assert.equal(search(all, "paris")[0].excerpt, "");
  const { excerpt } = search(all, "needle")[0];
  assert.ok(excerpt.includes("needle") && excerpt.length < 120 && excerpt.startsWith("…") && excerpt.endsWith("…"), excerpt);
});

test("sampling options in words and fields", () => {
  assert.equal(sampling.samplingText({ top_p: 0.949999988, temperature: 1, unknown: 3 }), "temperature 1, top-p 0.95");
  for (const stops of [[], ["a"], ["\n", "a\tb", "\\n", "\\\\"]]) assert.deepEqual(sampling.readStops(sampling.stopsText(stops)), stops);
  assert.throws(() => sampling.readStops("x\n".repeat(65)), /At most 64/);
  assert.throws(() => sampling.readStops("x".repeat(1025)), /1,024/);
  const props = (usual, advised) => ({ default_generation_settings: usual, model_sampling: advised });
  assert.match(sampling.defaultsText(props({ temperature: 0, top_k: 0 }, {})), /defaults: temperature 0\. The model's file recommends nothing/);
  assert.match(sampling.defaultsText(null), /defaults: temperature 0/);
  assert.match(sampling.defaultsText(props({ temperature: 1, top_p: 1 }, { temperature: 1, top_p: 1 })), /makers recommend: temperature 1/);
});

test("requests that go on with an answer", () => {
  const { DEFAULTS, options, request } = requests;
  const chosen = options({ ...DEFAULTS, stop: ["x"], top_k: 4 }, 42);
  assert.deepEqual([chosen.stop, chosen.top_k, "min_p" in chosen], [["x"], 4, false]);
  const path = [{ role: "user", content: "q" }, { role: "assistant", content: "a", reasoning: "r" }];
  const body = (mode, more) => request(mode, path, chosen, more).body;
  assert.deepEqual(body("chat", {}).messages.at(-1), { role: "assistant", content: "a" });
  assert.equal(body("chat", {}).continue_final_message, true);
  assert.equal(body("chat", { thinking: true }).messages.at(-1).reasoning_content, "r");
  assert.equal(body("completion", {}).prompt, "qa");
  assert.ok(!("continue_final_message" in body("completion", {})));
  assert.ok(!("continue_final_message" in request("chat", path.slice(0, 1), chosen).body));
});

test("a trace of an answer whose beginning has none", () => {
  const trace = new Trace({ content: "abc" });
  trace.add({ t: 1, tokens: [{ text: "de", kind: "content" }] });
  assert.equal(trace.spelled("content")[0].at, 3);
  const again = Trace.unpack(JSON.parse(JSON.stringify(trace.pack())), { content: "abcde" });
  assert.deepEqual(again.spelled("content").map(({ at, text }) => [at, text]), [[3, "de"]]);
  assert.ok(Trace.isPacked(trace.pack()));
});

test("how much of the context is used", () => {
  const answer = (prompt_tokens, completion_tokens, finish) => ({ finish, usage: { prompt_tokens, completion_tokens } });
  assert.equal(usedTokens([{}, answer(3, 4), {}]), 7);
  assert.equal(usedTokens([{}, { usage: { completion_tokens: 3 } }]), null);
  assert.equal(isFull(answer(90, 10, "length"), 100), true);
  assert.equal(isFull(answer(90, 8, "length"), 100), false);
  assert.equal(isFull(answer(90, 10, "stop"), 100), false);
  assert.equal(isFull({ finish: "length" }, 100), false);
});
