// Dialogs: the browser's own, which keep the focus and close with Escape.

import { h, iconButton } from "./dom.js";

/** Opens a dialog with a heading; it is removed when it closes. Returns the <dialog>. */
export function openDialog(title, content, { name = "", onclose = () => {} } = {}) {
  const heading = h("h2", { id: `${name || "dialog"}-title` }, title);
  const close = iconButton("close", "Close", () => dialog.close());
  const dialog = h("dialog", { class: name, "aria-labelledby": heading.id },
    h("div", { class: "dialog-head" }, heading, close), h("div", { class: "dialog-body" }, content));
  const opener = document.activeElement;
  dialog.addEventListener("close", () => {
    dialog.remove();
    onclose(dialog.returnValue);
    if (opener?.isConnected) {
      // The browser gave the focus back already, but Chromium then lost the caret with the dialog.
      opener.blur();
      opener.focus();
    }
  });
  // A press beside it closes it; one that began inside (a selection that ran out) does not.
  let pressed = null;
  dialog.addEventListener("pointerdown", (event) => { pressed = event.target; });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && pressed === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Asks; resolves to whether the user agreed. */
export function confirmDialog(title, sentence, action) {
  return new Promise((resolve) => {
    const yes = h("button", { type: "button", class: "button danger", onclick: () => dialog.close("yes") }, action);
    const no = h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Cancel");
    const dialog = openDialog(title, [h("p", {}, sentence), h("div", { class: "row end" }, no, yes)], {
      name: "small",
      onclose: (value) => resolve(value === "yes"),
    });
    no.focus();
  });
}
