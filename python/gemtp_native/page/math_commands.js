// Commands of LaTeX that take arguments: see math.js.

import { fenced, grid, leaf, node, operator, space } from "./math_tree.js";

const fraction = (attributes) => (p) => node("mfrac", [p.argument(), p.argument()], attributes);
const styledFraction = (display) => (p) => node("mstyle", [fraction({})(p)], { displaystyle: String(display) });
const binomial = (p) => fenced("(", fraction({ linethickness: "0" })(p), ")");
const modulo = (p) => node("mrow", [space("1em"), operator("(", { form: "prefix" }), leaf("mi", "mod"), space("0.333em"), p.argument(), operator(")", { form: "postfix" })]);

/** name -> what makes a tree of the command, from the parser that has just taken its name. */
export const COMMANDS = new Map([
  ["frac", fraction({})], ["dfrac", styledFraction(true)], ["cfrac", styledFraction(true)], ["tfrac", styledFraction(false)],
  ["binom", binomial], ["dbinom", binomial], ["tbinom", binomial],
  ["sqrt", (p) => p.root()],
  ["left", (p) => p.fence()],
  ["middle", (p) => operator(p.delimiter(), { stretchy: "true", fence: "true" })],
  ["begin", (p) => p.environment()],
  ["not", (p) => p.not()],
  ["operatorname", (p) => p.named()],
  ["bmod", () => operator("mod", { lspace: "0.222em", rspace: "0.222em" })],
  ["mod", () => operator("mod", { lspace: "1em", rspace: "0.333em" })],
  ["pmod", modulo],
  ["overset", over], ["stackrel", over], ["underset", under],
  ["xrightarrow", (p) => node("mover", [operator("→", { stretchy: "true" }), padded(p.argument())])],
  ["xleftarrow", (p) => node("mover", [operator("←", { stretchy: "true" }), padded(p.argument())])],
  ["boxed", (p) => node("mrow", [p.argument()], { class: "math-boxed" })],
  ["phantom", (p) => node("mphantom", [p.argument()])],
  ["substack", (p) => grid(inGroup(p), "center", false)],
  ["tag", (p) => node("mrow", [space("2em"), leaf("mtext", `(${p.raw()})`)])],
  ...["text", "textrm", "textnormal", "mbox"].map((name) => [name, (p) => p.text()]),
  ...[["textbf", "math-bold"], ["textit", "math-italic"], ["emph", "math-italic"], ["texttt", "math-mono"]].map(([name, style]) => (
    [name, (p) => ({ ...p.text(), attributes: { class: style } })])),
]);

function over(p) {
  const above = p.argument();
  return node("mover", [p.argument(), above]);
}

function under(p) {
  const below = p.argument();
  return { ...node("munder", [p.argument(), below]), limits: true };
}

function padded(inside) {
  return node("mrow", [space("0.4em"), inside, space("0.4em")]);
}

/** Rows in braces. */
function inGroup(p) {
  p.take("{");
  const rows = p.rows("");
  p.take("}");
  return rows;
}
