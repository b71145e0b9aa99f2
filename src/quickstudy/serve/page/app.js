// The page: two pads, the classes, the answer and the map, wired to the server.

import { addExamples } from "./adding.js";
import { Answers } from "./answers.js";
import { api } from "./api.js";
import { attempt, isUnsure, settle } from "./attempts.js";
import { changes } from "./changes.js";
import { forgetClasses, reveal, showClasses } from "./classes.js";
import { $, el, plural } from "./dom.js";
import { listen } from "./hands.js";
import { obey, prepare } from "./images.js";
import { forgetMarks } from "./marks.js";
import { closeUndo, say, toast } from "./notices.js";
import { Pad } from "./pad.js";
import { keepOnly } from "./pictures.js";
import { store } from "./store.js";

for (const kind of ["error", "unhandledrejection"]) {
  window.addEventListener(kind, (event) => {
    const problem = event.error ?? event.reason;
    const what = problem?.message ?? problem;
    if (problem) toast(`Something went wrong on this page (${what}). Reload it.`, { error: true });
  });
}

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
const answers = new Answers(trial, reload);
const actions = changes({ refresh: reload, open, more });

// ---- what is shown

const EARLY = "Still loading: press Enter again in a moment.";
let shown; // the task that was shown last

function show() {
  const { tasks, task, classes, examples, current, loaded } = store;
  if (shown !== current) {
    forgetMarks();
    forgetClasses();
    closeUndo();
    answers.clear();
    shown = current;
  }
  $("main").setAttribute("aria-busy", String(!loaded));
  $("task").replaceChildren(
    ...(tasks.length ? [] : [el("option", {}, "My first task")]),
    ...tasks.map(({ id, name }) => el("option", { value: id, selected: id === current }, name)),
  );
  if (tasks.length && !task) $("task").selectedIndex = -1; // nobody knows yet whether it is there
  showClasses($("classes"), { task: current, classes, examples, actions });
  $("classes-empty").hidden = classes.length > 0;
  $("classes-empty").textContent = loaded
    ? "None yet. Draw something above, name it, and press “Add example”."
    : "Loading …";
  $("names").replaceChildren(...classes.map(({ name }) => el("option", { value: name })));
  $("task-delete").disabled = !(task && loaded);
  $("download").disabled = store.taught < 2;
  for (const id of ["teach-add", "correct-add"]) $(id).disabled = !loaded || $(id).ariaBusy === "true";
  for (const id of ["teach-error", "correct-error"]) if (loaded && $(id).textContent === EARLY) $(id).textContent = "";
  nameButton();
  showAddress();
}

const showAddress = () =>
  history.replaceState(null, "", store.current === null ? location.pathname : `#${encodeURIComponent(store.current)}`);

function nameButton() {
  if ($("teach-add").ariaBusy === "true") return; // it says how far it is
  const name = $("teach-name").value.trim();
  const what = teach.state.files.length > 1 ? plural(teach.state.files.length, "image") : "example";
  const known = store.classes.some((c) => c.name === name);
  const where = known ? ` to “${name}”` : ` of new “${name}”`;
  $("teach-add").textContent = `Add ${what}${name ? where : ""}`;
}

async function reload() {
  if (!(await store.load())) return; // another task was opened meanwhile
  keepOnly(store.examples);
  show();
  answers.look(0);
  if (!store.missing) return;
  const instead = store.task ? ` “${store.task.name}” is open instead.` : "";
  toast(`The task that was open or linked is not on this server.${instead}`, { error: true });
}

function open(task) {
  store.open(task);
  show();
}

async function about() {
  const { version, learner, limits } = await api.health();
  $("about").textContent = `quickstudy ${version}, learner “${learner}”. Everything stays on this server.`;
  obey(limits ?? undefined);
}

// ---- adding what is on a pad

// stored(sent): the server has all or a part of what was sent; later: it was found out later.
function form(id, pad, stored) {
  const [field, button, error] = ["name", "add", "error"].map((part) => $(`${id}-${part}`));
  const clear = () => (error.textContent = "");
  field.addEventListener("input", clear);
  field.addEventListener("keydown", ({ key, isComposing }) => {
    if (key === "Enter" && !isComposing && !store.loaded) error.textContent = EARLY; // a disabled button hears nothing
  });
  pad.addEventListener("change", clear);
  $(`${id}-form`).addEventListener("submit", async (event) => {
    event.preventDefault();
    const { current: task, loaded } = store;
    if (!loaded || button.ariaBusy === "true") return;
    const focused = document.activeElement === button;
    button.ariaBusy = "true"; // one at a time
    button.disabled = true;
    try {
      await add(task, field, pad, { error, stored, progress: (text) => (say(text), (button.textContent = text)) });
    } finally {
      button.ariaBusy = null;
      button.disabled = !store.loaded;
      nameButton();
      if (focused && document.activeElement === document.body) button.focus();
    }
  });
}

async function add(task, field, pad, { error, stored, progress }) {
  const name = field.value.trim();
  error.textContent = name ? "" : "Give it a name first.";
  if (!name) return field.focus();
  const sent = pad.state;
  const files = pad.empty ? [] : await pad.pictures();
  // what got no answer the last time may have been added: then this is not the same press again
  if (isUnsure() && (await settle(reload, pad)) !== false) return;
  if (!files.length) return void (error.textContent = "Draw something or choose images first.");
  reveal(name);
  const took = (batch, later) => stored(sent.files.length ? { strokes: [], files: batch } : sent, later);
  const { rest, answered } = await addExamples(task, name, files, { source: pad, error, stored: took, progress });
  if (!answered) return;
  await attempt(reload);
  if (!rest.length) say(`${plural(files.length, "example")} of ${name} added.`);
}

form("teach", teach, (sent, later) => teach.done(sent, later));
form("correct", trial, () => ($("correct-name").value = ""));

function more(name) {
  $("teach-name").value = name;
  nameButton();
  $("teach").scrollIntoView({ block: "start" });
  $("teach-pad").querySelector(".choose").focus({ preventScroll: true });
  say(`Ready for more examples of ${name}.`);
}

// Files that were dropped on a class. What could not be stored goes to the pad, if nothing is there.
async function addDropped(name, dropped) {
  const { current: task } = store;
  const files = await Promise.all(dropped.map(prepare));
  const source = teach.empty ? teach : null;
  const stored = (batch, later) => teach.done({ strokes: [], files: batch }, later);
  const rest = await actions.addTo(task, name, files, { source, stored });
  if (!rest.length || !teach.empty) return;
  $("teach-name").value = name;
  teach.hold(rest);
}

// ---- the rest of what a person does

// The task in the page's address, as far as it is one; the page's own links are none.
function linked() {
  const hash = location.hash.slice(1);
  if (!hash || $(hash)) return null;
  try {
    return decodeURIComponent(hash);
  } catch {
    return hash; // no task is called that
  }
}

function go(task) {
  open(task);
  attempt(reload);
}

window.addEventListener("hashchange", () => {
  const task = linked();
  if (task !== null && task !== store.current) go(task);
  else showAddress();
});

$("task").addEventListener("change", () => go($("task").value));
$("task-new").addEventListener("click", () => actions.createTask());
$("task-delete").addEventListener("click", () => actions.deleteTask(store.task, store.examples.length));
$("retry").addEventListener("click", () => settle(reload));

$("download").addEventListener("click", () => {
  const { id, name } = store.task;
  attempt(async () => {
    const address = URL.createObjectURL(await api.model(id));
    const file = name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "model";
    el("a", { href: address, download: `${file}.safetensors` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
});

$("teach-name").addEventListener("input", nameButton);
teach.addEventListener("change", nameButton);
trial.addEventListener("change", () => answers.look());
trial.addEventListener("pen", () => answers.wait());
listen(teach, trial, addDropped);

attempt(about);
go(linked());
