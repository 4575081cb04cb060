// Sampling options of the settings: their names, limits and defaults.

/** name -> {label, low, high, whole, hint}; the names are those of requests. */
export const SAMPLING = {
  temperature: { label: "Temperature", low: 0, high: 100, hint: "Higher is more varied; 0 always takes the most likely token." },
  top_k: { label: "Top-k", low: -1, high: 1e6, whole: true, hint: "Only the k most likely tokens; 0: all." },
  top_p: { label: "Top-p", low: 0, high: 1, hint: "The most likely tokens that sum to p; 1: all." },
  min_p: { label: "Min-p", low: 0, high: 0.999, hint: "At least this share of the most likely token; 0: all." },
  repetition_penalty: { label: "Repetition penalty", low: 0.01, high: 100, hint: "Above 1: repeated tokens get less likely." },
  presence_penalty: { label: "Presence penalty", low: -100, high: 100, hint: "Once for each token that was there; 0: off." },
  frequency_penalty: { label: "Frequency penalty", low: -100, high: 100, hint: "For each time it was there; 0: off." },
  penalty_last_n: { label: "Penalty window", low: -1, high: 1e7, whole: true, hint: "Tokens back that penalties look at; -1: all." },
};
export const MAIN = ["temperature", "top_k", "top_p", "min_p"];
export const PENALTIES = Object.keys(SAMPLING).filter((name) => !MAIN.includes(name));
const OFF = { top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0, penalty_last_n: -1 };

/** Options that do something, in the order of SAMPLING. */
export function recommended(options) {
  const known = Object.keys(SAMPLING).filter((name) => Number.isFinite(options[name]) && options[name] !== OFF[name]);
  return Object.fromEntries(known.map((name) => [name, options[name]]));
}

/** {temperature: 1, top_k: 64} -> "temperature 1, top-k 64" */
export function samplingText(options) {
  const known = Object.keys(SAMPLING).filter((name) => Number.isFinite(options[name]));
  return known.map((name) => `${SAMPLING[name].label.toLowerCase()} ${rounded(options[name])}`).join(", ");
}

/** A number without the tail that 32 bits leave: 0.949999988 -> 0.95. */
export function rounded(value) {
  return Number(value.toPrecision(6));
}

/** What an empty field of the settings means, as a sentence. */
export function defaultsText(props) {
  const usual = recommended(props?.default_generation_settings ?? {});
  const advised = props?.model_sampling ?? {};
  const differs = Object.keys(SAMPLING).some((name) => name in advised && rounded(advised[name]) !== rounded(usual[name] ?? OFF[name] ?? 0));
  if (!Object.keys(advised).length) return `Empty fields use the server's defaults: ${samplingText(usual) || "temperature 0"}. The model's file recommends nothing.`;
  if (differs) return `Empty fields use the server's defaults: ${samplingText(usual)}. The model's makers recommend ${samplingText(advised)}.`;
  return `Empty fields use what the model's makers recommend: ${samplingText(advised)}.`;
}

/** The texts of a field with one a line, in which \n, \t and \\ are written so. */
export function readStops(text) {
  const stops = text.split("\n").filter((line) => line !== "").map((line) => (
    line.replace(/\\([nt\\])/g, (_, c) => ({ n: "\n", t: "\t", "\\": "\\" })[c])));
  if (stops.length > 64) throw new RangeError("At most 64 stop texts.");
  if (stops.some((stop) => stop.length > 1024)) throw new RangeError("A stop text has at most 1,024 characters.");
  return stops;
}

/** The opposite of readStops(). */
export function stopsText(stops) {
  return stops.map((stop) => stop.replace(/[\\\n\t]/g, (c) => ({ "\n": "\\n", "\t": "\\t", "\\": "\\\\" })[c])).join("\n");
}
