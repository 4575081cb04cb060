// What the server says about its model and itself, in a dialog.

import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { number } from "./figures.js";
import { recommended, samplingText } from "./sampling.js";

const yes = (value) => (value === undefined ? null : value ? "yes" : "no");

/** Rows [name, value] of /props; values that the server does not tell are left out. */
export function facts(props) {
  const { model_sampling: advised, default_generation_settings: usual = {} } = props;
  return [
    ["Model", props.model],
    ["Made for", { chat: "chat", completion: "completing texts" }[props.mode]],
    ["Chat template", props.chat === undefined ? null : props.chat ? "the model's own" : "none: Gemma 4's format is used"],
    ["Context", props.context && `${number(props.context)} tokens`],
    ["Drafter", props.drafter === undefined ? null : props.drafter ? "yes" : "none: drafts are looked up in the text"],
    ["Recommended sampling", advised && (Object.keys(advised).length ? samplingText(advised) : "none in the model's file")],
    ["Default sampling", samplingText(recommended(usual)) || null],
    ["Structured output", yes(props.structured)],
    ["Longest answer", props.max_tokens ? `${number(props.max_tokens)} tokens` : null],
    ["Answers at once", props.parallel],
    ["Threads", props.threads],
    ["Instruction set", props.isa],
    ["Key required", yes(props.auth)],
    ["gemtp", props.version],
    ["Server", location.host],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
}

export function openAbout(props) {
  openDialog("Model information", h("dl", { class: "facts" }, facts(props).map(([name, value]) => (
    h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))))), { name: "about" });
}
