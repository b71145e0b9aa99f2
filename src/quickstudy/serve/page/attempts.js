// Whatever asks the server passes here: every way to fail has its place on the page, and no change is ever repeated
// by itself.

import { Refused, ServerGone, TOKEN, TokenNeeded, token } from "./api.js";
import { $ } from "./dom.js";
import { ask, toast } from "./notices.js";
import { store } from "./store.js";

let unsure = []; // changes of which no answer came: {what, source, check}

// Do something with the server; true when it was done.
//   error: the element for what the server refuses; otherwise a notice says it.
//   change: for what changes something on the server: {what, source, check}. `what` says it in words; `source` is the
//     pad, or whatever else it can be asked for again from; check() asks the server later and resolves to {done, left}:
//     what was done after all and what was not, in words or null.
export async function attempt(action, { error = null, change = null } = {}) {
  if (error) error.textContent = "";
  try {
    await action();
  } catch (problem) {
    $("result").setAttribute("aria-busy", "false");
    if (problem instanceof TokenNeeded) {
      if (await askToken()) return attempt(action, { error, change }); // nothing was done without it
    } else if (problem instanceof Refused) {
      if (error) error.textContent = problem.message;
      else toast(problem.message, { error: true });
      return false;
    } else if (!(problem instanceof ServerGone)) throw problem;
    if (change) unsure.push(change);
    showBanner(problem instanceof TokenNeeded);
    return false;
  }
  if (!unsure.length && store.loaded) $("banner").hidden = true;
  return true;
}

// Without a change: whether there is any.
export const isUnsure = (change) => (change ? unsure.includes(change) : unsure.length > 0);

// Read everything again, and find out what became of the changes without an answer. Null where that fails, otherwise
// whether one from this source was done after all.
export async function settle(reload, source = null) {
  let arrived = false;
  const ok = await attempt(async () => {
    await reload();
    const open = [...unsure];
    const found = [];
    for (const change of open) found.push({ ...(await change.check()), own: source && change.source === source });
    unsure = unsure.filter((change) => !open.includes(change));
    arrived = found.some((each) => each.own && each.done);
    const done = found.map((each) => each.done).filter(Boolean);
    const left = found.map((each) => (arrived || !each.own) && each.left).filter(Boolean); // else it is done now
    const said = [done.length && `Done after all: ${done.join("; ")}.`, left.length && `Not done: ${left.join("; ")}.`];
    if (done.length + left.length) toast(said.filter(Boolean).join(" "), { error: left.length > 0 });
  });
  return ok ? arrived : null;
}

function showBanner(locked) {
  const why = locked ? "This server only answers those who know its token." : "The server does not answer.";
  const what = unsure.length ? `Not confirmed: ${unsure.map((change) => change.what).join("; ")}.` : "";
  $("banner-text").textContent = `${why} ${what} What is on the pads is kept.`;
  $("retry").textContent = locked ? "Enter the token" : "Try again";
  $("banner").hidden = false;
}

let asking = null; // one question at a time, however many requests were refused

function askToken() {
  asking ??= ask({
    title: "Token needed",
    text: token.get() ? "The server did not accept this token." : "This server only answers those who know its token.",
    field: "Token",
    ok: "Continue",
    secret: true,
    pattern: TOKEN,
    about: "A token has letters without accents, digits and signs only.",
  }).then((given) => {
    asking = null;
    if (given) token.set(given);
    return Boolean(given);
  });
  return asking;
}
