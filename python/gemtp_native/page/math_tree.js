// The parts that trees of formulas are built of: see math.js.

import { styled } from "./math_symbols.js";

/** Thrown for what these modules do not know. */
export class Unknown extends Error {}

export function node(tag, children, attributes = {}) {
  return { tag, children, attributes };
}

export function leaf(tag, text, attributes = {}) {
  return { tag, text, attributes };
}

export function operator(text, attributes = {}) {
  return leaf("mo", text, attributes);
}

export function row(children) {
  return children.length === 1 ? children[0] : node("mrow", children);
}

export function space(width) {
  return node("mspace", [], { width });
}

/** Rows of cells as a table. `columns`: "center", "left" or "turns", or an array of a word for each column. */
export function grid(rows, columns, display) {
  const place = (k) => (Array.isArray(columns) ? columns[k] ?? "center" : columns === "turns" ? ["right", "left"][k % 2] : columns);
  const cells = rows.map((cellsOf) => node("mtr", cellsOf.map((cell, k) => (
    node("mtd", [cell], { class: `math-${place(k)}${columns === "turns" ? " math-joined" : ""}` })))));
  return node("mtable", cells, display ? { displaystyle: "true" } : {});
}

export function fenced(left, inside, right) {
  const side = (text, form) => (text ? [operator(text, { form, fence: "true", stretchy: "true" })] : []);
  return node("mrow", [...side(left, "prefix"), inside, ...side(right, "postfix")]);
}

export function limit(name) {
  const attributes = { movablelimits: "true", form: "prefix", lspace: "0", rspace: "0.167em" };
  return { ...operator(name.replace(/[ \u00a0]/g, "\u2009"), attributes), limits: true };
}

export function scripts(base, sub, sup, limits) {
  const [below, above, both] = limits ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
  if (sub && sup) return node(both, [base, sub, sup]);
  if (sub) return node(below, [base, sub]);
  if (sup) return node(above, [base, sup]);
  return { ...base };
}

/** A tree with its letters and digits in a style. */
export function restyle(tree, style) {
  if (tree.children) return { ...tree, children: tree.children.map((child) => restyle(child, style)) };
  if (tree.tag !== "mi" && tree.tag !== "mn") return tree;
  if (style === "italic") return tree;
  if (style === "upright") return { ...tree, attributes: { ...tree.attributes, mathvariant: "normal" } };
  return { ...tree, text: styled(tree.text, style), attributes: { ...tree.attributes, mathvariant: "normal" } };
}

export function isEmpty(tree) {
  return tree.tag === "mrow" && tree.children.length === 0;
}

const LONG = 9; // parts of a formula that stays in one line
const BREAKS = /^[=<>≤≥≠≈≡∼→⇒⟹↔⇔⟺∈⊂⊆+−±×⋅,;]$/;

/** A formula of running text as pieces between which a line may end: behind relations and signs. */
export function breakable(tree) {
  if (tree.tag !== "mrow" || tree.children.length <= LONG) return [tree];
  const pieces = [[]];
  tree.children.forEach((child, k) => {
    const ends = k > 0 && child.tag === "mo" && BREAKS.test(child.text);
    pieces.at(-1).push(ends ? { ...child, attributes: { ...child.attributes, form: "infix" } } : child);
    if (ends && k + 1 < tree.children.length) pieces.push([]);
  });
  return pieces.map((piece) => node("mrow", piece));
}
