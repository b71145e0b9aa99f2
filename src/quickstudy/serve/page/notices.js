// What the page says and asks: a dialog, a short notice with a way back, words for a screen reader.

import { $, el, put } from "./dom.js";

// Ask for a line of text (field: its label) or for a yes. Resolves to the text, true, or null where it was cancelled.
export function ask({ title, text = "", field = null, value = "", ok, danger = false, secret = false }) {
  const dialog = $("dialog");
  const input = $("dialog-field");
  $("dialog-title").textContent = title;
  $("dialog-text").textContent = text;
  $("dialog-text").hidden = !text;
  $("dialog-label").textContent = field ?? "";
  $("dialog-label").hidden = input.hidden = field === null;
  input.type = secret ? "password" : "text";
  input.maxLength = secret ? 1000 : 80;
  input.required = field !== null;
  input.value = value;
  $("dialog-ok").textContent = ok;
  $("dialog-ok").className = danger ? "danger" : "primary";
  $("dialog-cancel").onclick = () => dialog.close("");
  dialog.returnValue = "";
  $("dialog-ok").value = "ok";
  if (!dialog.open) dialog.showModal();
  if (field === null) $("dialog-cancel").focus();
  else input.select();
  return new Promise((done) => {
    dialog.onclose = () => done(dialog.returnValue === "ok" ? (field === null ? true : input.value.trim()) : null);
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
    undo ? el("button", { type: "button", class: "small", onclick: () => (close(), undo()) }, "Undo") : null,
    el("button", { type: "button", class: "small quiet", "aria-label": "Close this notice", onclick: close }, "×"),
  );
  if (!error) timer = setTimeout(() => !root.contains(document.activeElement) && close(), 8000);
}

export const say = (text) => ($("live").textContent = text);
