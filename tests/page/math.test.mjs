// Formulas: what is one, what becomes of it, and what is left as it was written.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "../../python/gemtp_native/page/markdown.js";
import { formula } from "../../python/gemtp_native/page/math.js";

/** A tree as short text: operators bare, other leaves in their own brackets. */
function shown(tree) {
  if (tree === null) return null;
  if (tree.text !== undefined) return tree.text;
  if (tree.tag === "mspace") return " ";
  return `${tree.tag === "mrow" ? "" : tree.tag}(${tree.children.map(shown).join(",")})`;
}

const FORMULAS = [
  ["a+b", "(a,+,b)"],
  ["x_1^2", "msubsup(x,1,2)"],
  ["x_{n+1}", "msub(x,(n,+,1))"],
  ["x_12", "(msub(x,1),2)"],
  ["f''(x)", "(msup(f,′′),(,x,))"],
  ["\\frac{1}{2}+\\frac12", "(mfrac((1),(2)),+,mfrac(1,2))"],
  ["\\sqrt{x}\\sqrt[3]{y}", "(msqrt((x)),mroot((y),3))"],
  ["\\alpha\\Omega\\infty", "(α,Ω,∞)"],
  ["a-b\\times c\\le d\\ne e\\in\\mathbb{R}^n", "(a,−,b,×,c,≤,d,≠,e,∈,msup((ℝ),n))"],
  ["\\sum_{i=1}^n i", "(munderover(∑,(i,=,1),n),i)"],
  ["\\int_0^\\infty e^{-x}\\,dx", "(msubsup(∫,0,∞),msup(e,(−,x)), ,d,x)"],
  ["\\int\\limits_0^1 x", "(munderover(∫,0,1),x)"],
  ["\\lim_{x\\to 0}\\sin x", "(munder(lim,(x,→,0)),sin, ,x)"],
  ["\\sin(x)", "(sin,(,x,))"],
  ["\\operatorname*{arg\\,max}_x f", "(munder(arg\u2009max,x),f)"],
  ["\\left(\\frac ab\\right)^2", "msup(((,mfrac(a,b),)),2)"],
  ["\\left.x\\right|_0", "msub((x,|),0)"],
  ["\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "((,mtable(mtr(mtd(1),mtd(2)),mtr(mtd(3),mtd(4))),))"],
  ["\\begin{cases}1&x>0\\\\0&\\text{if not}\\end{cases}", "({,mtable(mtr(mtd(1),mtd((x,>,0))),mtr(mtd(0),mtd(if\u00a0not))))"],
  ["\\begin{aligned}a&=b\\\\[2pt]&=c\\end{aligned}", "mtable(mtr(mtd(a),mtd((=,b))),mtr(mtd(()),mtd((=,c))))"],
  ["a\\\\b", "mtable(mtr(mtd(a)),mtr(mtd(b)))"],
  ["\\hat x+\\vec{ab}+\\overline{z}", "(mover(x,^),+,mover((a,b),→),+,mover((z),‾))"],
  ["\\underbrace{a}_{n}", "munder(munder((a),⏟),(n))"],
  ["\\text{if } x", "(if\u00a0,x)"],
  ["\\mathbf{v}\\mathcal{L}\\mathrm{d}", "((𝐯),(ℒ),(d))"],
  ["\\binom nk", "((,mfrac(n,k),))"],
  ["\\{1,2\\}\\;100\\%", "({,1,,,2,}, ,100,%)"],
  ["\\not\\in\\not=", "(∉,≠)"],
  ["{}^{14}C", "(msup((),(14)),C)"],
  ["a\\bmod b\\pmod n", "(a,mod,b,( ,(,mod, ,n,)))"],
  ["\\overset{!}{=}", "mover((=),(!))"],
  ["\\displaystyle\\frac12", "mstyle(mfrac(1,2))"],
];

for (const [source, expected] of FORMULAS) {
  test(source, () => assert.equal(shown(formula(source)), expected));
}

test("what is unknown or broken is no formula", () => {
  for (const source of ["", " ", "\\unknown", "a}", "{a", "x^", "x_", "^", "\\frac1", "\\left(x", "\\right)", "\\begin{foo}x\\end{foo}",
    "\\begin{matrix}1", "\\begin{matrix}1\\end{pmatrix}", "x^1^2", "$x$", "#1", "\\href{javascript:1}{x}", "\\text{a\\b}", "\\text{$x$}",
    "\\color{red}x", "a\u202eb", "a\u0000", "\\", "\\sqrt[3", "\\left", "\\text{"]) {
    assert.equal(formula(source), null, source);
  }
});

/** The inline formulas in one paragraph: what stands in their leaves, in order. */
function formulasIn(source) {
  const found = [];
  const walk = (value) => {
    if (Array.isArray(value)) return value.forEach(walk);
    if (typeof value !== "object" || value === null) return undefined;
    if (value.type === "math") found.push(value.leaves.map(({ text }) => text).join("") + (value.tree ? "" : " (as written)"));
    else Object.values(value).forEach(walk);
    return undefined;
  };
  walk(parse(source));
  return found;
}

function textOf(value) {
  if (Array.isArray(value)) return value.map(textOf).join("");
  if (typeof value !== "object" || value === null) return "";
  if ("at" in value) return value.text;
  return Object.values(value).map(textOf).join("");
}

for (const [source, ...expected] of [
  ["so \\(a+b\\) and \\(c_1*d_2*\\)", "\\(a+b\\)", "\\(c_1*d_2*\\)"],
  ["Euler: $e^{i\\pi}+1=0$.", "$e^{i\\pi}+1=0$"],
  ["($x$, $y$)", "$x$", "$y$"],
  ["it is $5$, or $2\\$ + x$", "$5$", "$2\\$ + x$"],
  ["a $$x^2$$ b", "$$x^2$$"],
  ["\\[\nE = mc^2\n\\]", "\\[\nE = mc^2\n\\]"],
  ["so\n\\[\na\n+ b\n- c\n\\]\nthen", "\\[\na\n+ b\n- c\n\\]"],
  ["$$\n\\begin{aligned}\na &= b \\\\\n&= c\n\\end{aligned}\n$$", "$$\n\\begin{aligned}\na &= b \\\\\n&= c\n\\end{aligned}\n$$"],
  ["\\begin{align*}\na &= b\n\\end{align*}", "\\begin{align*}\na &= b\n\\end{align*}"],
  ["1. one\n   \\[ x \\]\n2. two $y$", "\\[ x \\]", "$y$"],
  ["> \\[\n> a\n> \\]", "\\[\na\n\\]"],
  ["| $a$ | b |\n|---|---|\n| \\(c\\) | d |", "$a$", "\\(c\\)"],
  ["**bold $x_1$**", "$x_1$"],
  ["\\[\n\\unknown{x}\n\\]", "\\[\n\\unknown{x}\n\\] (as written)"],
  ["\\[\nnot yet", "\\[\nnot yet (as written)"],
]) {
  test(`formulas in ${JSON.stringify(source)}`, () => assert.deepEqual(formulasIn(source), expected));
}

for (const source of [
  "It costs $5 and $6.", "between $5-$10", "$5 to 6$ a month", "5$ and 6$", "US$5/US$6", "$1,000, $2,000 and 3$.", "$20/month or $200/year",
  "$HOME/$USER", "$PATH:$HOME", "a $ b $ c", "$ x$", "$x $", "\\$5 and \\$6", "`$x$` and `\\(x\\)`", "$x$5", "a $$", "a $$$ b", "$", "from $5k, up to $6k",
]) {
  test(`no formula: ${source}`, () => {
    assert.deepEqual(formulasIn(source), []);
    assert.equal(textOf(parse(source)).replace(/`/g, ""), source.replace(/\\\$/g, "$").replace(/`/g, ""));
  });
}

for (const [source, expected] of [
  ["\\(\\unknown{a}_1 *b*\\)", "\\(\\unknown{a}_1 *b*\\)"],
  ["$\\foo{x}$ and $a$", "$\\foo{x}$ and $a$"],
  ["an open \\(a+b", "an open \\(a+b"],
  ["escaped \\[sic\\] and \\(see below\\) and \\*", "escaped [sic] and (see below) and *"],
  ["line \\\\(x\\\\)", "line \\(x\\)"],
]) {
  test(`as it is written: ${source}`, () => assert.equal(textOf(parse(source)), expected));
}

test("nothing costs more than its length", () => {
  const sources = ["\\(", "\\( x ", "$x", "$x$", "$$", "\\[", "{", "\\frac", "x^", "\\left(", "\\begin{matrix}", "a_{", "\\text{", "\\mathbf{", "$$\n", "\\[\n", "\\sqrt[", "&", "\\\\(", "'"];
  for (const piece of sources) {
    for (const size of [19_000, 200_000]) {
      const source = piece.repeat(size / piece.length);
      const began = performance.now();
      parse(source);
      formula(source.slice(0, 5000));
      formula(`${source.slice(0, 2400)}${"}".repeat(2500)}`);
      assert.ok(performance.now() - began < 5000, `${JSON.stringify(piece)} ${size}: ${performance.now() - began} ms`);
    }
  }
});
