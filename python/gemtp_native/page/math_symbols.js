// Commands of LaTeX that stand for one symbol. Tables of "name symbol" pairs.

function table(text) {
  const words = text.trim().split(/\s+/);
  return new Map(words.flatMap((word, k) => (k % 2 ? [] : [[word, words[k + 1]]])));
}

/** Letters: <mi>. */
export const LETTERS = table(`
  alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ varkappa ϰ
  lambda λ mu μ nu ν xi ξ omicron ο pi π varpi ϖ rho ρ varrho ϱ sigma σ varsigma ς tau τ upsilon υ phi ϕ varphi φ
  chi χ psi ψ omega ω imath ı jmath ȷ ell ℓ`);

/** Letters and signs that are upright: <mi mathvariant="normal">. */
export const UPRIGHT = table(`
  Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω
  infty ∞ partial ∂ nabla ∇ hbar ℏ Re ℜ Im ℑ wp ℘ aleph ℵ beth ℶ emptyset ∅ varnothing ∅ angle ∠ measuredangle ∡
  triangle △ square □ Box □ blacksquare ■ top ⊤ bot ⊥ degree ° complement ∁ dagger † ddagger ‡ clubsuit ♣
  diamondsuit ♢ heartsuit ♡ spadesuit ♠ sharp ♯ flat ♭ natural ♮ checkmark ✓ S § P ¶ pounds £ euro €
  forall ∀ exists ∃ nexists ∄ prime ′ backprime ‵ ldots … dots … dotsc … dotso … cdots ⋯ dotsb ⋯ dotsm ⋯ dotsi ⋯
  vdots ⋮ ddots ⋱`);

/** Operators, relations, arrows: <mo>. */
export const OPERATORS = table(`
  pm ± mp ∓ times × div ÷ cdot ⋅ ast ∗ star ⋆ circ ∘ bullet • oplus ⊕ ominus ⊖ otimes ⊗ oslash ⊘ odot ⊙ wedge ∧ land ∧
  vee ∨ lor ∨ cap ∩ cup ∪ sqcap ⊓ sqcup ⊔ uplus ⊎ setminus ∖ smallsetminus ∖ wr ≀ diamond ⋄ lnot ¬ neg ¬
  bigtriangleup △ bigtriangledown ▽ triangleleft ◃ triangleright ▹ amalg ⨿ ltimes ⋉ rtimes ⋊
  le ≤ leq ≤ leqslant ⩽ ge ≥ geq ≥ geqslant ⩾ lt < gt > ne ≠ neq ≠ ll ≪ gg ≫ equiv ≡ sim ∼ simeq ≃ cong ≅ approx ≈
  approxeq ≊ asymp ≍ doteq ≐ coloneqq ≔ triangleq ≜ propto ∝ varpropto ∝ prec ≺ succ ≻ preceq ⪯ succeq ⪰
  lesssim ≲ gtrsim ≳ perp ⊥ parallel ∥ nparallel ∦ mid ∣ nmid ∤ models ⊨ vdash ⊢ dashv ⊣ vDash ⊨ in ∈ notin ∉ ni ∋
  subset ⊂ supset ⊃ subseteq ⊆ supseteq ⊇ subsetneq ⊊ supsetneq ⊋ nsubseteq ⊈ sqsubseteq ⊑ sqsupseteq ⊒ bowtie ⋈
  nless ≮ ngtr ≯ nleq ≰ ngeq ≱ therefore ∴ because ∵
  to → rightarrow → leftarrow ← gets ← leftrightarrow ↔ Rightarrow ⇒ Leftarrow ⇐ Leftrightarrow ⇔ implies ⟹
  impliedby ⟸ iff ⟺ longrightarrow ⟶ longleftarrow ⟵ longleftrightarrow ⟷ Longrightarrow ⟹ Longleftarrow ⟸
  Longleftrightarrow ⟺ mapsto ↦ longmapsto ⟼ hookrightarrow ↪ hookleftarrow ↩ uparrow ↑ downarrow ↓ updownarrow ↕
  Uparrow ⇑ Downarrow ⇓ nearrow ↗ searrow ↘ swarrow ↙ nwarrow ↖ rightharpoonup ⇀ rightharpoondown ⇁ leftharpoonup ↼
  rightleftharpoons ⇌ leadsto ⇝ rightsquigarrow ⇝ nrightarrow ↛ nRightarrow ⇏ upharpoonright ↾ colon :`);

/** Large operators with limits above and below in displays. */
export const SUMS = table(`
  sum ∑ prod ∏ coprod ∐ bigcup ⋃ bigcap ⋂ bigvee ⋁ bigwedge ⋀ bigoplus ⨁ bigotimes ⨂ bigodot ⨀ bigsqcup ⨆ biguplus ⨄`);

export const INTEGRALS = table("int ∫ iint ∬ iiint ∭ oint ∮ oiint ∯ smallint ∫");

/** Functions with an upright name. */
export const FUNCTIONS = new Set(`
  sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot exp log ln lg arg deg dim hom ker`.trim().split(/\s+/));

/** The same, with what they range over below. */
export const LIMITS = new Map([
  ..."lim max min sup inf det gcd Pr".split(" ").map((name) => [name, name]),
  ["limsup", "lim sup"], ["liminf", "lim inf"], ["argmax", "arg max"], ["argmin", "arg min"],
]);

/** Accents: [what stands above, whether it is as wide as what it stands on]. */
export const ACCENTS = new Map([
  ["hat", ["^", false]], ["check", ["ˇ", false]], ["tilde", ["~", false]], ["acute", ["´", false]], ["grave", ["`", false]],
  ["dot", ["˙", false]], ["ddot", ["¨", false]], ["breve", ["˘", false]], ["bar", ["¯", false]], ["vec", ["→", false]],
  ["mathring", ["˚", false]], ["widehat", ["^", true]], ["widetilde", ["~", true]], ["overline", ["‾", true]],
  ["overrightarrow", ["→", true]], ["overleftarrow", ["←", true]], ["overleftrightarrow", ["↔", true]], ["overbrace", ["⏞", true]],
]);

export const UNDER = new Map([["underline", "_"], ["underbrace", "⏟"], ["underrightarrow", "→"], ["underleftarrow", "←"]]);

/** What may stand behind \left, \middle, \right and \big. */
export const DELIMITERS = new Map([
  ..."( ) [ ] | /".split(" ").map((c) => [c, c]), [".", ""], ["<", "⟨"], [">", "⟩"],
  ["\\{", "{"], ["\\}", "}"], ["\\|", "‖"],
  ...table(`\\lbrace { \\rbrace } \\lbrack [ \\rbrack ] \\langle ⟨ \\rangle ⟩ \\lfloor ⌊ \\rfloor ⌋ \\lceil ⌈ \\rceil ⌉ \\vert | \\Vert ‖
    \\lvert | \\rvert | \\lVert ‖ \\rVert ‖ \\lgroup ⟮ \\rgroup ⟯ \\backslash \\ \\uparrow ↑ \\downarrow ↓ \\updownarrow ↕`),
]);

/** Widths of spaces. */
export const SPACES = new Map([
  [",", "0.167em"], [":", "0.222em"], [">", "0.222em"], [";", "0.278em"], ["!", "-0.167em"], [" ", "0.333em"], ["\n", "0.333em"],
  ["thinspace", "0.167em"], ["medspace", "0.222em"], ["thickspace", "0.278em"], ["negthinspace", "-0.167em"],
  ["enspace", "0.5em"], ["quad", "1em"], ["qquad", "2em"],
]);

/** Environments: [left, right, how columns stand]: "center", "left", or "turns": right, left, right … */
export const ENVIRONMENTS = new Map([
  ["matrix", ["", "", "center"]], ["smallmatrix", ["", "", "center"]], ["pmatrix", ["(", ")", "center"]], ["bmatrix", ["[", "]", "center"]],
  ["Bmatrix", ["{", "}", "center"]], ["vmatrix", ["|", "|", "center"]], ["Vmatrix", ["‖", "‖", "center"]],
  ["array", ["", "", "center"]], ["cases", ["{", "", "left"]], ["dcases", ["{", "", "left"]], ["rcases", ["", "}", "left"]],
  ...["aligned", "align", "align*", "split", "alignat", "eqnarray", "eqnarray*"].map((name) => [name, ["", "", "turns"]]),
  ...["gathered", "gather", "gather*", "equation", "equation*", "multline", "multline*"].map((name) => [name, ["", "", "center"]]),
]);

const PLANES = { // where capitals, small letters and digits of a style begin
  bold: [0x1d400, 0x1d41a, 0x1d7ce],
  script: [0x1d49c, 0x1d4b6, null],
  fraktur: [0x1d504, 0x1d51e, null],
  double: [0x1d538, 0x1d552, 0x1d7d8],
  sans: [0x1d5a0, 0x1d5ba, 0x1d7e2],
  mono: [0x1d670, 0x1d68a, 0x1d7f6],
};

// Letters that Unicode had before the others of their style.
const EARLIER = {
  script: { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" },
  fraktur: { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" },
  double: { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" },
};

export const STYLES = new Map([
  ["mathbf", "bold"], ["boldsymbol", "bold"], ["bm", "bold"], ["mathcal", "script"], ["mathscr", "script"],
  ["mathfrak", "fraktur"], ["mathbb", "double"], ["mathsf", "sans"], ["mathtt", "mono"], ["mathrm", "upright"],
  ["mathit", "italic"], ["mathnormal", "italic"],
]);

/** A text in a style of PLANES; characters that it lacks stay as they are. */
export function styled(text, style) {
  const [capital, small, digit] = PLANES[style];
  return Array.from(text, (c) => {
    if (Object.hasOwn(EARLIER[style] ?? {}, c)) return EARLIER[style][c];
    if (c >= "A" && c <= "Z") return String.fromCodePoint(capital + c.charCodeAt(0) - 65);
    if (c >= "a" && c <= "z") return String.fromCodePoint(small + c.charCodeAt(0) - 97);
    if (c >= "0" && c <= "9" && digit) return String.fromCodePoint(digit + c.charCodeAt(0) - 48);
    return c;
  }).join("");
}
