// The page: two pads, the classes, the answer and the map, wired to the server.

import { Refused, ServerGone, TokenNeeded, api, token } from "./api.js";
import { showClasses } from "./classes.js";
import { $, el, plural } from "./dom.js";
import { listen } from "./hands.js";
import { prepare } from "./images.js";
import { forgetMarks } from "./marks.js";
import { showMap } from "./map.js";
import { ask, say, toast } from "./notices.js";
import { Pad } from "./pad.js";
import { showHint, showPrediction, spoken } from "./results.js";
import { Store } from "./store.js";

const PAUSE = 150; // milliseconds of stillness before a drawing is classified

const store = new Store();
const teach = new Pad($("teach-pad"), {
  name: "teach",
  ghost: "Draw here, or drop images",
  choose: "Choose images",
  multiple: true,
});
const trial = new Pad($("try-pad"), {
  name: "try",
  ghost: "Draw here, or drop an image",
  choose: "Choose image",
});
let prediction = null;
let unfinished = []; // what to do again once the server answers

// Do something with the server. True when it was done; every way to fail has its place on the page.
async function attempt(action, { error = null } = {}) {
  if (error) error.textContent = "";
  try {
    await action();
    if (!$("banner").hidden) $("banner").hidden = true;
    return true;
  } catch (problem) {
    if (problem instanceof ServerGone) {
      later(action, "The server does not answer. What you have drawn is kept on this page.", "Try again");
    } else if (problem instanceof TokenNeeded) {
      if (await askToken()) return attempt(action, { error });
      later(action, "This server only answers those who know its token.", "Enter the token");
    } else if (problem instanceof Refused) {
      if (error) error.textContent = problem.message;
      else toast(problem.message, { error: true });
    } else {
      throw problem;
    }
    return false;
  }
}

function later(action, text, button) {
  unfinished = [...unfinished.filter((other) => other !== action), action];
  $("result").setAttribute("aria-busy", "false");
  $("banner-text").textContent = text;
  $("retry").textContent = button;
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
  }).then((given) => {
    asking = null;
    if (given) token.set(given);
    return Boolean(given);
  });
  return asking;
}

$("retry").addEventListener("click", async () => {
  const again = unfinished;
  unfinished = [];
  if (!(await attempt(reload))) return unfinished.push(...again.filter((action) => action !== reload));
  for (const action of again) if (action !== reload) await attempt(action);
});

// ---- what is shown

function show() {
  const { tasks, task, classes, examples } = store;
  $("main").setAttribute("aria-busy", "false");
  $("task").replaceChildren(
    ...(tasks.length ? [] : [el("option", {}, "My first task")]),
    ...tasks.map(({ id, name }) => el("option", { value: id, selected: id === store.current }, name)),
  );
  $("task-delete").disabled = !task;
  $("download").disabled = !store.taught;
  history.replaceState(null, "", task ? `#${task.id}` : location.pathname);
  showClasses($("classes"), { classes, examples, picture: (id) => store.picture(id), actions });
  $("classes-empty").hidden = classes.length > 0;
  $("classes-empty").textContent = "None yet. Draw something above, name it, and press “Add example”.";
  $("names").replaceChildren(...classes.map(({ name }) => el("option", { value: name })));
  nameButton();
}

function nameButton() {
  const name = $("teach-name").value.trim();
  const what = teach.state.files.length > 1 ? plural(teach.state.files.length, "image") : "example";
  const known = store.classes.some((c) => c.name === name);
  const where = known ? ` to “${name}”` : ` of new “${name}”`;
  $("teach-add").textContent = `Add ${what}${name ? where : ""}`;
}

async function reload() {
  await store.load(store.current ?? decodeURIComponent(location.hash.slice(1)));
  show();
  look(0);
}

async function about() {
  const { version, learner } = await api.health();
  $("about").textContent = `quickstudy ${version}, learner “${learner}”. Everything stays on this server.`;
}

// ---- the answer and the map

let waiting;
let request;

// Classify what is on the second pad and draw the map, once nothing has changed for a moment.
function look(pause = PAUSE) {
  clearTimeout(waiting);
  request?.abort();
  $("result").setAttribute("aria-busy", "true");
  waiting = setTimeout(() => attempt(lookNow), pause);
}

async function lookNow() {
  request = new AbortController();
  const { signal } = request;
  const { current, taught } = store;
  const drawn = !trial.empty;
  try {
    if (!drawn || taught < 2) {
      prediction = null;
      $("correct-form").hidden = !drawn;
      showHint($("result"), hint(taught));
      const map = taught ? await api.map(current, null, signal) : { points: [] };
      if (!signal.aborted) showMap($("plot"), $("legend"), map);
      return;
    }
    const files = await trial.pictures();
    const [answer, map] = await Promise.all([api.classify(current, files, signal), api.map(current, files, signal)]);
    if (signal.aborted) return;
    prediction = answer.predictions[0];
    showPrediction($("result"), prediction);
    showMap($("plot"), $("legend"), map, prediction);
    $("correct-form").hidden = false;
    say(spoken(prediction));
  } catch (problem) {
    if (problem.name === "AbortError") return;
    if (!(problem instanceof Refused)) throw problem;
    prediction = null;
    showHint($("result"), problem.message);
  }
}

function hint(taught) {
  if (taught === 0) return "First teach two classes.";
  if (taught === 1) return "One class is there. Teach a second one, so that there is something to tell apart.";
  return "Draw here to see which class it is.";
}

// ---- what a person does

async function add(pad, name, fields, error) {
  error.textContent = "";
  if (!name) {
    error.textContent = "Give it a name first.";
    fields.focus();
    return;
  }
  if (pad.empty) {
    error.textContent = "Draw something or choose images first.";
    return;
  }
  const sent = pad.state;
  const files = await pad.pictures();
  await attempt(async () => {
    await addDirectly(name, files);
    if (pad === teach) pad.done(sent);
  }, { error });
}

async function addDirectly(name, files) {
  await store.add(name, files).finally(show);
  say(`${plural(files.length, "example")} of ${name} added.`);
  look(0);
}

function form(id, pad, field, error, after = () => {}) {
  let busy = false; // a second press while the first is under way would add twice
  $(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    await add(pad, field.value.trim(), field, error).finally(() => (busy = false));
    after();
  });
  field.addEventListener("input", () => (error.textContent = ""));
  pad.addEventListener("change", () => (error.textContent = ""));
}

form("teach-form", teach, $("teach-name"), $("teach-error"));
form("correct-form", trial, $("correct-name"), $("correct-error"), () => {
  if (!$("correct-error").textContent) $("correct-name").value = "";
});

const actions = {
  more(name) {
    $("teach-name").value = name;
    nameButton();
    $("teach").scrollIntoView({ block: "start" });
    $("teach-pad").querySelector(".choose").focus({ preventScroll: true });
    say(`Ready for more examples of ${name}.`);
  },
  async rename(name) {
    const to = await ask({ title: `Rename “${name}”`, field: "New name", value: name, ok: "Rename" });
    if (to && to !== name && (await attempt(() => store.renameClass(name, to)))) show(), look(0);
  },
  async remove(name, count) {
    const text = count ? `Its ${plural(count, "example")} will be deleted too.` : "It has no examples.";
    if (!(await ask({ title: `Remove “${name}”?`, text, ok: "Remove", danger: true }))) return;
    if (await attempt(() => store.removeClass(name))) show(), look(0), say(`${name} removed.`);
  },
  async removeExample(example) {
    const blob = await store.blob(example.id).catch(() => null);
    if (!(await attempt(() => store.removeExample(example)))) return;
    show();
    look(0);
    const back = () => attempt(() => addDirectly(example.label, [{ blob, name: "example.png" }]));
    toast(`One example of “${example.label}” removed.`, { undo: blob && back });
  },
};

$("task").addEventListener("change", () =>
  attempt(async () => {
    await store.load($("task").value);
    forgetMarks();
    show();
    look(0);
  }),
);

$("task-new").addEventListener("click", async () => {
  const name = await ask({ title: "New task", text: "A task has classes of its own.", field: "Name", ok: "Create" });
  if (name && (await attempt(() => store.createTask(name)))) forgetMarks(), show(), look(0);
});

$("task-delete").addEventListener("click", async () => {
  const { task, examples } = store;
  const text = `Its classes and ${plural(examples.length, "example")} will be gone for good.`;
  if (!(await ask({ title: `Delete “${task.name}”?`, text, ok: "Delete task", danger: true }))) return;
  if (await attempt(() => store.deleteTask())) forgetMarks(), show(), look(0);
});

$("download").addEventListener("click", () =>
  attempt(async () => {
    const address = URL.createObjectURL(await api.model(store.current));
    const name = store.task.name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "model";
    el("a", { href: address, download: `${name}.safetensors` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }),
);

$("teach-name").addEventListener("input", nameButton);
teach.addEventListener("change", nameButton);
trial.addEventListener("change", () => look());
trial.addEventListener("pen", () => clearTimeout(waiting));
listen(teach, trial, (name, files) =>
  attempt(async () => addDirectly(name, await Promise.all(files.map(prepare)))),
);

window.addEventListener("hashchange", () => attempt(reload));

attempt(about);
attempt(reload);
