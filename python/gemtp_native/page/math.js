// LaTeX's formulas as trees of MathML: {tag, text} or {tag, children}, with `attributes`. What it does not know
// makes it give up, and the formula is left as it was written.

import { COMMANDS } from "./math_commands.js";
import { ACCENTS, DELIMITERS, ENVIRONMENTS, FUNCTIONS, INTEGRALS, LETTERS, LIMITS, OPERATORS, SPACES, STYLES, SUMS, UNDER, UPRIGHT } from "./math_symbols.js";
import { fenced, grid, isEmpty, leaf, limit, node, operator, restyle, row, scripts, space, Unknown } from "./math_tree.js";

export const LONGEST_FORMULA = 5000; // UTF-16 units
const DEEPEST = 40; // groups inside of each other
const BIG = { big: "1.2em", Big: "1.8em", bigg: "2.4em", Bigg: "3em" };
const CLOSES = "})]";
// Characters that hide, or that turn the direction of what follows.
const UNSOUND = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/u;

/** The MathML of a formula without its delimiters, or null if there is something in it that this does not know. */
export function formula(source) {
  if (source.length > LONGEST_FORMULA || source.trim() === "" || UNSOUND.test(source.replace(/[\t\r\n]/g, " "))) return null;
  const parser = new Parser(source);
  try {
    const rows = parser.rows("");
    return parser.i < source.length ? null : whole(rows);
  } catch (error) {
    if (error instanceof Unknown) return null;
    throw error;
  }
}

function whole(rows) {
  if (rows.length === 1 && rows[0].length === 1) return rows[0][0];
  return grid(rows, rows.some((cells) => cells.length > 1) ? "turns" : "center", true);
}

class Parser {
  constructor(source) {
    this.source = source;
    this.i = 0;
    this.depth = 0;
  }

  // ------------------------------------------------------------ reading

  blanks() {
    while (/\s/.test(this.source[this.i] ?? "x")) this.i += 1;
  }

  /** The next token, not taken: a character, or a command with its backslash; "" at the end. */
  peek() {
    this.blanks();
    const c = this.source[this.i];
    if (c === undefined) return "";
    if (c !== "\\") return String.fromCodePoint(this.source.codePointAt(this.i));
    let end = this.i + 1;
    while (/[A-Za-z]/.test(this.source[end] ?? "")) end += 1;
    return this.source.slice(this.i, Math.max(end, this.i + 2));
  }

  take(expected = null) {
    const token = this.peek();
    if (token === "" || (expected !== null && token !== expected)) throw new Unknown();
    this.i += token.length;
    return token;
  }

  /** What stands in braces, as it is. */
  raw() {
    this.take("{");
    const start = this.i;
    for (let open = 1; open; this.i++) {
      const c = this.source[this.i];
      if (c === undefined) throw new Unknown();
      if (c === "\\") this.i += 1;
      else if (c === "{") open += 1;
      else if (c === "}") open -= 1;
    }
    return this.source.slice(start, this.i - 1);
  }

  // ------------------------------------------------------------ rows

  /** Rows of cells, up to the end of the formula ("") or to \end{name}, which is taken. */
  rows(name) {
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(this.expression());
      const token = this.peek();
      if (token === "&" || token === "\\\\") this.take();
      if (token === "\\\\") {
        rows.push([]);
        this.#skipRowSpace();
      } else if (token !== "&") {
        break;
      }
    }
    if (name !== "") {
      this.take("\\end");
      if (this.raw() !== name) throw new Unknown();
    }
    const last = rows.at(-1);
    if (rows.length > 1 && last.length === 1 && isEmpty(last[0])) rows.pop();
    return rows;
  }

  #skipRowSpace() {
    const found = /^\s*\[-?[\d.]+\s*(?:em|ex|pt|mm|cm)\]/.exec(this.source.slice(this.i, this.i + 20));
    if (found) this.i += found[0].length;
  }

  /** Atoms with their scripts up to what ends a group, a cell or the formula. */
  expression(end = null) {
    this.depth += 1;
    if (this.depth > DEEPEST) throw new Unknown();
    const found = [];
    for (let token = this.peek(); !this.#ends(token, end); token = this.peek()) {
      if (token === "\\displaystyle" || token === "\\textstyle") {
        this.take();
        found.push(node("mstyle", [this.expression(end)], { displaystyle: String(token === "\\displaystyle") }));
        continue;
      }
      const atom = this.scripted();
      found.push(atom);
      if (atom.isFunction && /^[\p{L}\p{N}\\]/u.test(this.peek()) && this.peek() !== "\\left" && !this.#ends(this.peek(), end)) {
        found.push(space("0.167em"));
      }
    }
    this.depth -= 1;
    return row(found);
  }

  #ends(token, end) {
    return token === "" || token === end || ["}", "&", "\\\\", "\\end", "\\right"].includes(token);
  }

  /** An atom with what stands above and below it. */
  scripted() {
    const first = this.peek();
    const base = first === "^" || first === "_" || first === "'" ? node("mrow", []) : this.atom();
    let [sub, sup, primes] = [null, null, ""];
    let limits = base.limits ?? false;
    for (let token = this.peek(); ; token = this.peek()) {
      if (token === "\\limits" || token === "\\nolimits") {
        this.take();
        limits = token === "\\limits";
      } else if (token === "'") {
        this.take();
        primes += "′";
      } else if (token === "^" && !sup) {
        this.take();
        sup = this.argument();
      } else if (token === "_" && !sub) {
        this.take();
        sub = this.argument();
      } else if (token === "^" || token === "_") {
        throw new Unknown();
      } else {
        break;
      }
    }
    if (primes) sup = sup ? row([operator(primes), sup]) : operator(primes);
    const made = scripts(base, sub, sup, limits);
    made.isFunction = base.isFunction;
    return made;
  }

  /** What a command or a script takes: a group or the next atom; of a number, one digit. */
  argument() {
    const token = this.peek();
    if (token === "" || "}^_&".includes(token) || token === "\\\\" || token === "\\end" || token === "\\right") throw new Unknown();
    if (/^\d$/.test(token)) return leaf("mn", this.take());
    this.depth += 1;
    if (this.depth > DEEPEST) throw new Unknown();
    const made = this.atom();
    this.depth -= 1;
    return made;
  }

  // ------------------------------------------------------------ atoms

  atom() {
    const token = this.peek();
    if (token[0] === "\\") return this.command(this.take().slice(1));
    if (token === "{") return this.#group();
    if (/\d/.test(token)) return this.#number();
    this.take();
    if (/\p{L}/u.test(token)) return leaf("mi", token);
    if (token === "-") return operator("−");
    if (token === "*") return operator("∗");
    if (token === "~") return space("0.333em");
    if ("([".includes(token)) return operator(token, { form: "prefix", stretchy: "false" });
    if (CLOSES.includes(token)) return operator(token, { form: "postfix", stretchy: "false" });
    if (token === "|") return operator("|", { stretchy: "false", lspace: "0", rspace: "0" });
    if (token === "/") return operator("/", { lspace: "0", rspace: "0" });
    if (/[$#^_&"`@]/.test(token)) throw new Unknown();
    return operator(token);
  }

  #group() {
    this.take("{");
    const inside = this.expression();
    this.take("}");
    return inside.tag === "mrow" ? inside : node("mrow", [inside]);
  }

  #number() {
    const found = /^\d+(?:\.\d+)?/.exec(this.source.slice(this.i, this.i + 400))[0];
    this.i += found.length;
    return leaf("mn", found);
  }

  command(name) {
    if (LETTERS.has(name)) return leaf("mi", LETTERS.get(name));
    if (UPRIGHT.has(name)) return leaf("mi", UPRIGHT.get(name), { mathvariant: "normal" });
    if (OPERATORS.has(name)) return operator(OPERATORS.get(name));
    if (SUMS.has(name)) return { ...operator(SUMS.get(name), { movablelimits: "true" }), limits: true };
    if (INTEGRALS.has(name)) return operator(INTEGRALS.get(name));
    if (FUNCTIONS.has(name)) return { ...leaf("mi", name, { mathvariant: "normal" }), isFunction: true };
    if (LIMITS.has(name)) return limit(LIMITS.get(name));
    if (SPACES.has(name)) return space(SPACES.get(name));
    if (STYLES.has(name)) return restyle(this.argument(), STYLES.get(name));
    if (ACCENTS.has(name)) return this.#accent(...ACCENTS.get(name), name);
    if (UNDER.has(name)) return this.#under(name);
    const big = /^(big|Big|bigg|Bigg)([lrm]?)$/.exec(name);
    if (big) return this.#big(BIG[big[1]], big[2]);
    if (DELIMITERS.has(`\\${name}`)) return operator(DELIMITERS.get(`\\${name}`), { stretchy: "false", ...sideOf(name) });
    if (/^[%#&_$]$/.test(name)) return leaf("mi", name, { mathvariant: "normal" });
    const build = COMMANDS.get(name);
    if (!build) throw new Unknown();
    return build(this);
  }

  #accent(mark, wide, name) {
    const above = operator(mark, { stretchy: String(wide) });
    return { ...node("mover", [this.argument(), above], { accent: "true" }), limits: name === "overbrace" };
  }

  #under(name) {
    const below = operator(UNDER.get(name), { stretchy: "true" });
    return { ...node("munder", [this.argument(), below], { accentunder: "true" }), limits: name === "underbrace" };
  }

  delimiter() {
    const token = this.take();
    if (!DELIMITERS.has(token)) throw new Unknown();
    return DELIMITERS.get(token);
  }

  #big(size, side) {
    const form = { l: { form: "prefix" }, r: { form: "postfix" } }[side] ?? {};
    return operator(this.delimiter(), { stretchy: "true", minsize: size, maxsize: size, ...form });
  }

  fence() {
    const left = this.delimiter();
    const inside = this.expression();
    this.take("\\right");
    return fenced(left, inside, this.delimiter());
  }

  environment() {
    const name = this.raw();
    if (!ENVIRONMENTS.has(name)) throw new Unknown();
    const [left, right, usual] = ENVIRONMENTS.get(name);
    let columns = usual;
    if (name === "array") columns = columnsOf(this.raw());
    else if (name === "alignat") this.raw();
    this.depth += 1;
    if (this.depth > DEEPEST) throw new Unknown();
    const rows = this.rows(name);
    this.depth -= 1;
    const inside = grid(rows, columns, usual === "turns" || name === "dcases");
    return left || right ? fenced(left, inside, right) : inside;
  }

  root() {
    if (this.peek() !== "[") return node("msqrt", [this.argument()]);
    this.take("[");
    const index = this.expression("]");
    this.take("]");
    return node("mroot", [this.argument(), index]);
  }

  text() {
    const raw = this.raw();
    const said = raw.replace(/\\([%#&_$ {}])/g, "$1");
    if (/[\\$]/.test(raw.replace(/\\[%#&_$ {}]/g, "")) || /[{}]/.test(raw.replace(/\\[{}]/g, ""))) throw new Unknown();
    return leaf("mtext", said.replace(/\s+/g, "\u00a0"));
  }

  /** A relation with a stroke through it. */
  not() {
    const inside = this.argument();
    if (inside.tag !== "mo") throw new Unknown();
    return { ...inside, text: `${inside.text}\u0338`.normalize("NFC") };
  }

  named() {
    const under = this.source[this.i] === "*";
    if (under) this.i += 1;
    const name = this.raw().replace(/\\[,;: ]/g, "\u00a0").trim();
    if (!/^[\p{L}\p{N}\u00a0 -]+$/u.test(name)) throw new Unknown();
    return under ? limit(name) : { ...leaf("mi", name, { mathvariant: "normal" }), isFunction: true };
  }
}

function sideOf(name) {
  if (/^(l|lbrace|\{)/.test(name)) return { form: "prefix" };
  if (/^(r|\})/.test(name)) return { form: "postfix" };
  return { lspace: "0", rspace: "0" };
}

/** The columns of an array: {lcr|}. */
function columnsOf(text) {
  if (!/^[lcr|\s]+$/.test(text)) throw new Unknown();
  return Array.from(text.replace(/[|\s]/g, ""), (c) => ({ l: "left", c: "center", r: "right" })[c]);
}
