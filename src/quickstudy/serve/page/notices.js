// What the page says and asks: a dialog, a short notice with a way back, words for a screen reader.

import { $, el, put } from "./dom.js";

let cancel; // the question that was asked last

// Ask for a line of text (field: its label) or for a yes. Resolves to the text, true, or null where it was cancelled.
// pattern: what the text has to be made of, about: that in words. A question that is still open counts as cancelled.
export function ask({ title, text = "", field, value = "", ok, danger = false, secret = false, pattern, about }) {
  const dialog = $("dialog");
  const input = $("dialog-field");
  $("dialog-title").textContent = title;
  $("dialog-text").textContent = text;
  $("dialog-text").hidden = !text;
  $("dialog-label").textContent = field ?? "";
  $("dialog-label").hidden = input.hidden = field === undefined;
  input.type = secret ? "password" : "text";
  input.maxLength = secret ? 1000 : 80;
  input.required = field !== undefined;
  input.pattern = pattern ?? ".*";
  input.title = about ?? "";
  input.value = value;
  $("dialog-ok").textContent = ok;
  $("dialog-ok").className = danger ? "danger" : "primary";
  $("dialog-cancel").onclick = () => dialog.close("");
  dialog.returnValue = "";
  $("dialog-ok").value = "ok";
  if (!dialog.open) dialog.showModal();
  if (field === undefined) $("dialog-cancel").focus();
  else input.select();
  return new Promise((done) => {
    cancel?.(null);
    cancel = done;
    const given = () => (field === undefined ? true : input.value.trim());
    dialog.onclose = () => done(dialog.returnValue === "ok" ? given() : null);
  });
}

let timer;

export function toast(text, { error = false, undo = null } = {}) {
  const root = $("toast");
  clearTimeout(timer);
  const close = () => (root.hidden = true);
  root.hidden = false;
  root.classList.toggle("is-error", error);
  root.setAttribute("role", error ? "alert" : "status");
  put(
    root,
    el("p", {}, text),
    undo ? el("button", { type: "button", class: "small undo", onclick: () => (close(), undo()) }, "Undo") : null,
    el("button", { type: "button", class: "small quiet", "aria-label": "Close this notice", onclick: close }, "×"),
  );
  if (!error) timer = setTimeout(() => !root.contains(document.activeElement) && close(), 8000);
}

// What was taken away can only be brought back where it was.
export const closeUndo = () => $("toast").querySelector(".undo") && ($("toast").hidden = true);

export const say = (text) => ($("live").textContent = text);
