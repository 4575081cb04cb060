import assert from "node:assert/strict";
import { test } from "node:test";
import { safeLink } from "../../python/gemtp_native/page/inline.js";
import { parse } from "../../python/gemtp_native/page/markdown.js";

/** Blocks as short text: what the page would show. */
function shown(blocks) {
  return blocks.map((block) => {
    switch (block.type) {
      case "heading":
        return `h${block.level}(${spans(block.children)})`;
      case "paragraph":
        return `p(${spans(block.children)})`;
      case "quote":
        return `quote(${shown(block.blocks)})`;
      case "list":
        return `${block.ordered ? `ol${block.first}` : "ul"}(${block.items.map((item) => shown(item.blocks)).join(";")})`;
      case "code":
        return `code:${block.language}(${block.lines.map((line) => line.text).join("\n")})`;
      case "table":
        return `table(${[block.head, ...block.rows].map((row) => row.map(spans).join("|")).join("/")})`;
      default:
        return block.type;
    }
  }).join(" ");
}

function spans(nodes) {
  return nodes.map((node) => {
    if (node.type === "break") return "<br>";
    if (node.type === "text") return text(node.leaves);
    if (node.type === "code") return `\`${text(node.leaves)}\``;
    if (node.type === "link") return `[${spans(node.children)}](${node.href})`;
    return `<${node.type}>${spans(node.children)}</${node.type}>`;
  }).join("");
}

function text(leaves) {
  return leaves.map((leaf) => leaf.text).join("");
}

const CASES = [
  ["# Title ##\ntext", "h1(Title) p(text)"],
  ["####### seven", "p(####### seven)"],
  ["a *b* **c** ***d*** ~~e~~", "p(a <em>b</em> <strong>c</strong> <em><strong>d</strong></em> <del>e</del>)"],
  ["snake_case_name 2*3*4 * 5", "p(snake_case_name 2<em>3</em>4 * 5)"],
  ["**open", "p(**open)"],
  ["`a*b*` ``c`d``", "p(`a*b*` `c`d`)"],
  ["a\\*b\\*", "p(a*b*)"],
  ["one  \ntwo\\\nthree\nfour", "p(one<br>two<br>three\nfour)"],
  ["[a *b*](https://x.org/c \"t\")", "p([a <em>b</em>](https://x.org/c))"],
  ["[a](javascript:alert(1))", "p([a](null))"],
  ["![alt](https://x.org/i.png)", "p([alt](https://x.org/i.png))"],
  ["see https://x.org/a_b_(c), ok", "p(see [https://x.org/a_b_(c)](https://x.org/a_b_(c)), ok)"],
  ["<https://x.org>", "p([https://x.org](https://x.org/))"],
  ["<b>not bold</b>", "p(<b>not bold</b>)"],
  ["- a\n- b\n\n  c\n  1. d", "ul(p(a);p(b) p(c) ol1(p(d)))"],
  ["3. a\n4. b", "ol3(p(a);p(b))"],
  ["* a\n- b", "ul(p(a)) ul(p(b))"],
  ["> a\nb\n\nc", "quote(p(a\nb)) p(c)"],
  ["```py x\n<i>\n  y\n```\nz", "code:py(<i>\n  y) p(z)"],
  ["~~~\nopen", "code:(open)"],
  ["| a | b |\n|---|:-:|\n| 1 | `2` |\n| 3 |\nend", "table(a|b/1|`2`/3|) p(end)"],
  ["a | b\nc", "p(a | b\nc)"],
  ["---\n***\n_ _ _", "rule rule rule"],
  ["", ""],
];

for (const [source, expected] of CASES) {
  test(JSON.stringify(source), () => assert.equal(shown(parse(source)), expected));
}

/** Every leaf of blocks, in order. */
function leavesOf(value) {
  if (Array.isArray(value)) return value.flatMap(leavesOf);
  if (typeof value !== "object" || value === null) return [];
  if ("at" in value) return [value];
  return Object.values(value).flatMap(leavesOf);
}

function random(seed) {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

const PIECES = ["*", "**", "_", "`", "```", "\n", "\n\n", "- ", "1. ", "> ", "#", "|", "|---|", "[", "](", ")", "\\", "~~", "  ", "\t", "a", "bc", "é", "\u{1f600}", "<b>", "https://x.y/", "!", ":", "\r\n", "&lt;", "\u202e"];

test("leaves are pieces of the source, in order, and nothing raises", () => {
  const next = random(7);
  for (let round = 0; round < 4000; round++) {
    const source = Array.from({ length: 1 + next(40) }, () => PIECES[next(PIECES.length)]).join("");
    let end = 0;
    for (const { at, text: piece } of leavesOf(parse(source))) {
      assert.equal(source.slice(at, at + piece.length), piece, JSON.stringify(source));
      assert.ok(at >= end, `leaves overlap in ${JSON.stringify(source)}`);
      end = at + piece.length;
    }
  }
});

test("letters are never lost", () => {
  const next = random(11);
  for (let round = 0; round < 2000; round++) {
    const source = Array.from({ length: 1 + next(30) }, () => PIECES[next(PIECES.length)]).join("");
    if (/https|```|\]\(|\|/.test(source)) continue; // targets and languages are not shown as text
    const count = (s) => s.replace(/[^abcé\u{1f600}]/gu, "").length;
    assert.equal(count(text(leavesOf(parse(source)))), count(source), JSON.stringify(source));
  }
});

// Under and over the length from which a paragraph is plain text.
for (const HUGE of [19_000, 200_000]) for (const [name, source] of [
  ["stars", "*a ".repeat(HUGE / 3)],
  ["stars and words", "*a**b".repeat(HUGE / 5)],
  ["brackets", "[".repeat(HUGE)],
  ["links", "[](".repeat(HUGE / 3)],
  ["backticks", Array.from({ length: 600 }, (_, i) => "`".repeat(i)).join(" ")],
  ["quotes", "> ".repeat(HUGE / 2)],
  ["lists", "- ".repeat(HUGE / 2)],
  ["nested lists", Array.from({ length: 400 }, (_, i) => `${" ".repeat(2 * i)}- x`).join("\n")],
  ["a line", "x".repeat(4 * HUGE)],
  ["lines", "x\n".repeat(HUGE / 2)],
  ["pipes", "|".repeat(HUGE)],
  ["escapes", "\\*".repeat(HUGE / 2)],
  ["a table", `${"|a".repeat(500)}\n${"|-".repeat(500)}\n${`${"|b".repeat(500)}\n`.repeat(100)}`],
]) {
  test(`huge: ${name}, ${HUGE}`, () => {
    const began = performance.now();
    parse(source);
    assert.ok(performance.now() - began < 20_000, `${performance.now() - began} ms`);
  });
}

test("addresses that are followed", () => {
  for (const href of ["https://a.b", "http://a.b", "mailto:a@b.c"]) assert.ok(safeLink(href));
  for (const href of ["javascript:1", "JaVaScRiPt:1", "data:text/html,x", "vbscript:x", "/local", "file:///etc", "", " "]) {
    assert.equal(safeLink(href), null, href);
  }
});
