// Colours of code: runs of every language, over lines, and while code grows.
import assert from "node:assert/strict";
import { test } from "node:test";
import { highlighter, KINDS } from "../../python/gemtp_native/page/highlight.js";
import { LANGUAGES } from "../../python/gemtp_native/page/languages.js";
import { moreOfFence, parse } from "../../python/gemtp_native/page/markdown.js";

/** The coloured runs of a text as "kind:text". */
function runs(language, text) {
  const reader = highlighter(language);
  return text.split("\n").flatMap((line) => {
    const found = reader.line(line);
    assert.equal(found.map(([, piece]) => piece).join(""), line);
    return found.filter(([kind]) => kind).map(([kind, piece]) => `${kind}:${piece}`);
  });
}

for (const [language, text, ...expected] of [
  ["python", '@cache\ndef f(x): # y\n  return f"a{x}" or None + 0x1F', "meta:@cache", "keyword:def", "function:f", "comment:# y", "keyword:return", 'string:f"a{x}"', "keyword:or", "literal:None", "number:0x1F"],
  ["py", 'x = """a\nif b\n""" # c', 'string:"""a', "string:if b", 'string:"""', "comment:# c"],
  ["js", "const a = `x\n${y} \\` z`, r = /a[/]b/g; // c", "keyword:const", "string:`x", "string:${y} \\` z`", "string:/a[/]b/g", "comment:// c"],
  ["js", "a / b / c", ],
  ["ts", "let x: string = 'a\\'b' as any", "keyword:let", "type:string", "string:'a\\'b'", "keyword:as", "type:any"],
  ["c", '#include <stdio.h>\nint main(void) { /* a\nb */ return 0; }', "meta:#include", "string:<stdio.h>", "type:int", "function:main", "type:void", "comment:/* a", "comment:b */", "keyword:return", "number:0"],
  ["c++", "auto p = std::make_unique<T>(nullptr);", "keyword:auto", "literal:nullptr"],
  ["rust", "fn f<'a>(x: &'a str) -> char { println!(\"{}\", 'x') }", "keyword:fn", "meta:'a", "meta:'a", "type:str", "type:char", "function:println!", 'string:"{}"', "string:'x'"],
  ["go", "func f() error { return nil } // x", "keyword:func", "function:f", "type:error", "keyword:return", "literal:nil", "comment:// x"],
  ["java", "@Override public int f() { return 1L; }", "meta:@Override", "keyword:public", "type:int", "function:f", "keyword:return", "number:1L"],
  ["bash", 'if [ "$x" ]; then ls -la ${HOME} # y\necho a#b', "keyword:if", 'string:"$x"', "keyword:then", "type:ls", "meta:-la", "key:${HOME}", "comment:# y", "type:echo"],
  ["json", '{"a": ["b", 1.5, true]}', 'key:"a"', 'string:"b"', "number:1.5", "literal:true"],
  ["html", "<!-- a\nb --><p class=\"x\">it's &amp; 5</p>", "comment:<!-- a", "comment:b -->", "meta:<p", "key:class", 'string:"x"', "meta:>", "literal:&amp;", "meta:</p", "meta:>"],
  ["css", ".a:hover { color: #fff; width: 10px } /* b */", "meta:.a", "meta::hover", "key:color", "literal:#fff", "key:width", "number:10px", "comment:/* b */"],
  ["sql", "SELECT count(*) FROM t -- all\nwhere a = 'it''s'", "keyword:SELECT", "function:count", "keyword:FROM", "comment:-- all", "keyword:where", "string:'it''s'"],
  ["yaml", "a-b: yes # c\n- d: \"x\"\n  e: 5", "key:a-b", "literal:yes", "comment:# c", "key:- d", 'string:"x"', "key:  e", "number:5"],
  ["diff", "@@ -1 +1 @@\n-a\n+b\n c", "meta:@@ -1 +1 @@", "removed:-a", "added:+b"],
]) {
  test(`${language}: ${JSON.stringify(text)}`, () => assert.deepEqual(runs(language, text), expected));
}

test("unknown languages have no colours", () => {
  for (const name of ["", "text", "constructor", "brainfuck"]) assert.equal(highlighter(name), null);
});

const PIECES = ['"', "'", "`", "/*", "*/", "//", "#", "<!--", "-->", '"""', "\\", "$", "{", "}", "<", ">", "=", ":", "- ", "a", "if", "1", "0x", ".", "@", "\u{1f600}", "é", " ", "\t", "+", "r#"];

test("runs are the line, their kinds are known, and the same line gives the same runs", () => {
  let state = 3;
  const next = (n) => { state = (Math.imul(state, 1664525) + 1013904223) >>> 0; return Math.floor((state / 2 ** 32) * n); };
  for (const language of LANGUAGES.keys()) {
    const reader = highlighter(language);
    for (let round = 0; round < 60; round++) {
      const line = Array.from({ length: next(30) }, () => PIECES[next(PIECES.length)]).join("");
      const glanced = reader.glance(line);
      const found = reader.line(line);
      assert.deepEqual(glanced, found);
      assert.equal(found.map(([, text]) => text).join(""), line);
      for (const [kind] of found) assert.ok(kind === null || KINDS.includes(kind), `${language}: ${kind}`);
    }
  }
});

test("no line costs more than its length allows", () => {
  for (const language of LANGUAGES.keys()) {
    for (const piece of PIECES) {
      const reader = highlighter(language);
      const line = piece.repeat(2000 / piece.length);
      const began = performance.now();
      for (let k = 0; k < 3; k++) reader.line(line);
      reader.line(piece.repeat(100_000));
      assert.ok(performance.now() - began < 1000, `${language} ${piece}: ${performance.now() - began} ms`);
    }
  }
});

test("code that grows is read from its last line on", () => {
  const source = "```py\na = 1\nb = ``\n  ``` x\n~~~\nc\n``` \nafter";
  for (const size of [1, 2, 3, 7]) {
    let block = null;
    let [kept, tail, end] = [[], null, null];
    const take = (lines, closed) => {
      kept.push(...(closed ? lines : lines.slice(0, -1)).map((line) => line.text));
      tail = closed ? null : lines.at(-1).text;
    };
    for (let to = size; to < source.length + size && end === null; to += size) {
      const part = source.slice(0, to);
      if (block) {
        const more = moreOfFence(part, block);
        end = more.end;
        take(more.lines, end !== null);
      } else {
        const last = parse(part).at(-1);
        if (last.type === "code" && last.open && last.lines.length) {
          block = last;
          take(block.lines, false);
        }
      }
    }
    assert.deepEqual(kept, ["a = 1", "b = ``", "  ``` x", "~~~", "c"]);
    assert.equal(tail, null);
    assert.equal(source.slice(end), "after");
  }
});
