// Building and finding elements. Text only ever becomes text nodes.

/**
 * h("button", {class: "x", "aria-label": "y", onclick: f, disabled: true}, "text", element)
 * A property that begins with "on" is a listener; false, null and undefined are left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

/** The element of index.html with this id. */
export function byId(id) {
  return document.getElementById(id);
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const MATHML = "http://www.w3.org/1998/Math/MathML";

/** A tree of math.js as elements. */
export function mathml({ tag, text, children = [], attributes = {} }) {
  const element = document.createElementNS(MATHML, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...(text === undefined ? children.map(mathml) : [text]));
  return element;
}

// Drawn on a grid of 20 x 20, as strokes.
const ICONS = {
  send: "M10 16V4M4.5 9.5 10 4l5.5 5.5",
  stop: "M5 5h10v10H5z",
  copy: "M7.5 7.5h9v9h-9zM12.5 7.5v-4h-9v9h4",
  done: "m4 10.5 4 4 8-9",
  edit: "M4 16l.8-3.6L13 4.2l2.8 2.8-8.2 8.2zM11 6.2 13.8 9",
  again: "M15.5 7A6.3 6.3 0 1 0 16 11.5M16 3v4.5h-4.5",
  race: "M3 6h8M3 10h12M3 14h5M15 4v12",
  remove: "M4 6h12M8 6V4h4v2M5.5 6l.7 10h7.6l.7-10",
  save: "M10 3v9M6 8.5 10 12.5l4-4M4 16h12",
  left: "M12 5 7 10l5 5",
  right: "m8 5 5 5-5 5",
  down: "M10 4v12M4.5 10.5 10 16l5.5-5.5",
  close: "m5 5 10 10M15 5 5 15",
  wrap: "M3 5h14M3 10h11a2.5 2.5 0 0 1 0 5h-3M12.5 13l-2 2 2 2M3 15h4",
};

export function icon(name) {
  const drawing = svg("path", { d: ICONS[name] });
  return svg("svg", { viewBox: "0 0 20 20", class: "icon", "aria-hidden": "true" }, drawing);
}

/** A button that shows an icon and is called `label`; with `text` that is shown beside it. */
export function iconButton(name, label, onclick, { text = null, ...properties } = {}) {
  const call = text ? {} : { "aria-label": label };
  const style = text ? "button quiet" : "button quiet icon-only";
  return h("button", { type: "button", class: style, title: label, onclick, ...call, ...properties },
    icon(name), text && h("span", {}, text));
}

/** Copies text; true if it worked. Without https the clipboard is out of reach, an old way is not. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "hidden-field", readonly: true });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    const focused = document.activeElement;
    area.select();
    const worked = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return worked;
  }
}

/** A button that copies what `text()` gives and says so. */
export function copyButton(text, label = "Copy", options = {}) {
  const button = iconButton("copy", label, async () => {
    const worked = await copyText(text());
    say(worked ? "Copied." : "The browser did not let this page copy.");
    if (!worked) return;
    button.replaceChild(icon("done"), button.firstChild);
    setTimeout(() => button.replaceChild(icon("copy"), button.firstChild), 1200);
  }, options);
  return button;
}

/** Saves text as a file of the user's. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Says a sentence to those who listen to the page rather than see it. */
export function say(sentence) {
  const region = byId("said");
  region.append(h("p", {}, sentence));
  while (region.childElementCount > 6) region.firstChild.remove();
}
