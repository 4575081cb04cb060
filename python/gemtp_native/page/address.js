// The address of a conversation, #chat=ID: reload, bookmarks, back and forward lead to it.

const FORM = /^#chat=([a-z0-9]{1,40})$/;

/** The conversation that the address names, or null. */
export function addressed() {
  return FORM.exec(location.hash)?.[1] ?? null;
}

/** Makes the address that of a conversation, or of none (null): as a step of the history, or in place of the latest. */
export function setAddress(id, { replace = false } = {}) {
  if (addressed() === id) return;
  const url = id === null ? location.pathname + location.search : `#chat=${id}`;
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
}
