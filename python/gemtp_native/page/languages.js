// What the parts of code look like, for each language that highlight.js knows. Patterns are sources of regular expressions
// that look at one line; none can take more than linear time, but for lookaheads, which lines of bounded length bound.

const words = (text) => new Set(text.trim().split(/\s+/));

const DOUBLE = '"(?:[^"\\\\]|\\\\.)*"?';
const SINGLE = "'(?:[^'\\\\]|\\\\.)*'?";
const NUMBER = "\\b(?:0[xX][\\da-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|\\d[\\d_]*(?:\\.[\\d_]+)?(?:[eE][+-]?\\d+)?)[a-zA-Z_]*";
const C_COMMENT = { comment: "//.*", multi: [["/\\*", "\\*/", "comment"]] };

const C_WORDS = `if else for while do switch case default break continue return goto sizeof typedef struct union enum static const
  extern inline volatile register auto restrict`;
const C_TYPES = `void char short int long float double signed unsigned bool size_t ssize_t int8_t int16_t int32_t int64_t uint8_t uint16_t
  uint32_t uint64_t uintptr_t FILE`;
const JS_WORDS = `async await break case catch class const continue debugger default delete do else export extends finally for from function
  get if import in instanceof let new of return set static super switch this throw try typeof var void while with yield`;

const python = {
  comment: "#.*",
  multi: [["[rbfuRBFU]{0,2}\"\"\"", '"""', "string"], ["[rbfuRBFU]{0,2}'''", "'''", "string"]],
  string: `[rbfuRBFU]{0,2}(?:${DOUBLE}|${SINGLE})`,
  extra: [["meta", "^\\s*@[\\w.]+"]],
  keywords: words(`and as assert async await break case class continue def del elif else except finally for from global if import in is lambda
    match nonlocal not or pass raise return try while with yield`),
  literals: words("True False None self cls"),
  types: words("int float str bool list dict set tuple bytes object type complex"),
};
const javascript = {
  ...C_COMMENT,
  multi: [...C_COMMENT.multi, ["`", "`", "string"]],
  string: `${DOUBLE}|${SINGLE}`,
  extra: [["string", "(?<=[=(,:!&|?]\\s?)/(?![/*])(?:[^/\\\\[]|\\\\.|\\[(?:[^\\]\\\\]|\\\\.)*\\])+/[a-z]*"], ["meta", "@\\w+"]],
  keywords: words(JS_WORDS),
  literals: words("true false null undefined NaN Infinity"),
  types: words("Array Boolean Date Error Map Math Number Object Promise RegExp Set String Symbol JSON console"),
};
const typescript = {
  ...javascript,
  keywords: words(`${JS_WORDS} abstract as asserts declare enum implements infer interface is keyof namespace private protected public readonly
    satisfies type`),
  types: new Set([...javascript.types, ...words("any bigint boolean never number object string symbol unknown void")]),
};
const c = {
  ...C_COMMENT,
  string: `${DOUBLE}|${SINGLE}`,
  extra: [["meta", "^\\s*#\\s*\\w+"], ["string", "(?<=#\\s*include\\s*)<[^>]*>?"]],
  keywords: words(C_WORDS),
  literals: words("NULL true false"),
  types: words(C_TYPES),
};
const cpp = {
  ...c,
  keywords: words(`${C_WORDS} alignas alignof and catch class co_await co_return co_yield concept consteval constexpr constinit const_cast delete
    decltype dynamic_cast explicit export final friend import module mutable namespace new noexcept not operator or override private
    protected public reinterpret_cast requires static_assert static_cast template this throw try typeid typename using virtual`),
  literals: words("NULL nullptr true false"),
  types: new Set([...c.types, ...words("string string_view vector map set span optional unique_ptr shared_ptr")]),
};
const rust = {
  ...C_COMMENT,
  string: `b?${DOUBLE}|b?'(?:[^'\\\\]|\\\\[^']+)'`,
  extra: [["meta", "#!?\\[[^\\]]*\\]?|'[a-z_]+\\b(?!')"], ["function", "\\b\\w+!(?=[(\\[{\\s])"]],
  keywords: words(`as async await break const continue crate dyn else enum extern fn for if impl in let loop match mod move mut pub ref return
    static struct super trait type union unsafe use where while`),
  literals: words("true false self Self None Some Ok Err"),
  types: words("bool char f32 f64 i8 i16 i32 i64 i128 isize str u8 u16 u32 u64 u128 usize String Vec Option Result Box Rc Arc HashMap"),
};
const go = {
  ...C_COMMENT,
  multi: [...C_COMMENT.multi, ["`", "`", "string"]],
  string: `${DOUBLE}|${SINGLE}`,
  keywords: words(`break case chan const continue default defer else fallthrough for func go goto if import interface map package range return
    select struct switch type var`),
  literals: words("true false nil iota"),
  types: words(`any bool byte comparable complex64 complex128 error float32 float64 int int8 int16 int32 int64 rune string uint uint8 uint16
    uint32 uint64 uintptr`),
};
const java = {
  ...C_COMMENT,
  multi: [...C_COMMENT.multi, ['"""', '"""', "string"]],
  string: `${DOUBLE}|${SINGLE}`,
  extra: [["meta", "@\\w+"]],
  keywords: words(`abstract assert break case catch class const continue default do else enum extends final finally for goto if implements import
    instanceof interface native new package private protected public record return sealed static strictfp super switch synchronized this
    throw throws transient try var volatile while yield`),
  literals: words("true false null"),
  types: words("boolean byte char double float int long short void String Integer Long Double Boolean Object List Map Set"),
};
const shell = {
  comment: "(?<![^\\s;])#.*",
  string: `${DOUBLE}|'[^']*'?`,
  extra: [["key", "\\$(?:\\w+|\\{[^}]*\\}|[?!#@*$-])"], ["meta", "(?<=\\s)--?[A-Za-z][\\w-]*"]],
  keywords: words(`if then else elif fi for while until do done case esac in function select return exit break continue local export readonly
    declare unset source alias set shift trap`),
  types: words(`cat cd chmod cp curl docker echo find git grep ls make mkdir mv npm pip printf python python3 rm sed sudo tar test touch wget
    xargs awk`),
};
const json = {
  comment: "//.*",
  extra: [["key", '"(?:[^"\\\\]|\\\\.)*"(?=\\s*:)']],
  string: DOUBLE,
  literals: words("true false null"),
};
const html = {
  multi: [["<!--", "-->", "comment"]],
  string: "(?<==\\s?)(?:\"[^\"]*\"?|'[^']*'?)",
  extra: [["meta", "</?[A-Za-z][\\w:.-]*|<[!?][A-Za-z][\\w-]*|[/?]?>"], ["key", "[\\w:@.-]+(?==)"], ["literal", "&#?\\w+;"]],
  number: null,
  isProse: true,
};
const css = {
  multi: C_COMMENT.multi,
  string: `${DOUBLE}|${SINGLE}`,
  extra: [["key", "-{0,2}[a-zA-Z][\\w-]*(?=\\s*:\\s)"], ["literal", "#[\\da-fA-F]{3,8}\\b"], ["keyword", "@[\\w-]+|!important"], ["meta", "[.#&][a-zA-Z][\\w-]*|::?[a-z-]+"]],
  number: "-?\\b\\d+(?:\\.\\d+)?(?:%|[a-z]+)?",
};
const sql = {
  comment: "--.*",
  multi: C_COMMENT.multi,
  string: "'(?:[^']|'')*'?|\"[^\"]*\"?",
  ignoreCase: true,
  keywords: words(`add all alter and as asc begin between by case check column commit constraint create cross database default delete desc distinct
    drop else end exists explain foreign from full group having if in index inner insert intersect into is join key left like limit not
    offset on or order outer over partition primary references returning right rollback select set table then transaction truncate union
    unique update using values view when where with`),
  literals: words("true false null"),
  types: words("bigint blob boolean char date datetime decimal double float int integer numeric real serial smallint text timestamp uuid varchar"),
};
const yaml = {
  comment: "(?<!\\S)#.*",
  string: `${DOUBLE}|(?<!\\w)'(?:[^']|'')*'?`,
  extra: [["key", "^\\s*(?:- +)*[\\w./\"'<-][^:#]{0,80}?(?=:(?:\\s|$))"], ["meta", "(?<!\\S)[&*!][\\w-]+|^(?:---|\\.\\.\\.)"]],
  literals: words("true false null yes no on off ~"),
  number: "(?<![\\w.-])-?\\d+(?:\\.\\d+)?(?![\\w.-])",
  isProse: true,
};
const diff = {
  lines: [["meta", /^(?:\+\+\+|---|@@|diff |index |\\ )/], ["added", /^\+/], ["removed", /^-/]],
};

for (const language of [python, javascript, typescript, c, cpp, rust, go, java, json, sql, shell]) language.number = NUMBER;

const NAMES = [
  [python, "python py python3 pyi"], [javascript, "javascript js jsx mjs cjs node"], [typescript, "typescript ts tsx"], [c, "c h"],
  [cpp, "cpp c++ cc cxx hpp cuda cu"], [rust, "rust rs"], [go, "go golang"], [java, "java kotlin kt scala"],
  [shell, "shell bash sh zsh console shellsession"], [json, "json jsonc json5 jsonl"], [html, "html xml svg xhtml vue"], [css, "css scss less"],
  [sql, "sql postgresql mysql sqlite"], [yaml, "yaml yml"], [diff, "diff patch"],
];

/** name -> description, with the short names that people write behind their fences. */
export const LANGUAGES = new Map(NAMES.flatMap(([language, names]) => names.split(" ").map((name) => [name, language])));
