// What a person changes on the server. Each takes the task that was open at the click; that another one may be open
// when it is done makes no difference.

import { api } from "./api.js";
import { addExamples } from "./adding.js";
import { attempt, isUnsure, settle } from "./attempts.js";
import { reveal } from "./classes.js";
import { plural } from "./dom.js";
import { ask, say, toast } from "./notices.js";
import { blobOf } from "./pictures.js";
import { store } from "./store.js";

async function classesOf(task) {
  const found = (await api.tasks()).find(({ id }) => id === task);
  return found?.classes.map(({ name }) => name) ?? [];
}

// refresh(): read and show all again. open(task): show another task. more(name): get ready for examples of that class.
export function changes({ refresh, open, more }) {
  // done(): whether the server shows that it was done, if no answer came.
  async function change(what, action, done) {
    const check = async () => ((await done()) ? { done: what, left: null } : { done: null, left: what });
    const about = { what, source: null, check };
    const ok = await attempt(action, { change: about });
    if (!isUnsure(about)) await attempt(refresh);
    return ok;
  }

  // Image files that are to become examples at once. Resolves to those that did not.
  async function addTo(task, name, files, { source, stored }) {
    const arrived = isUnsure() ? await settle(refresh, source) : false;
    if (arrived !== false) return arrived ? [] : files;
    reveal(name);
    const { rest, answered } = await addExamples(task, name, files, { source, stored });
    if (answered) await attempt(refresh);
    if (!rest.length) say(`${plural(files.length, "example")} of ${name} added.`);
    return rest;
  }

  async function bringBack(task, label, file) {
    const again = () => bringBack(task, label, file);
    const rest = await addTo(task, label, [file], { source: file });
    if (rest.length && store.current === task) toast("The example was not brought back.", { error: true, undo: again });
  }

  return {
    more,
    addTo,
    async rename(task, name) {
      const given = await ask({ title: `Rename “${name}”`, field: "New name", value: name, ok: "Rename" });
      const to = given?.normalize("NFC");
      if (!to || to === name) return;
      reveal(to);
      const done = async () => (await classesOf(task)).includes(to);
      await change(`rename “${name}”`, () => api.renameClass(task, name, to), done);
    },
    async remove(task, name, count) {
      const text = count ? `Its ${plural(count, "example")} will be deleted too.` : "It has no examples.";
      if (!(await ask({ title: `Remove “${name}”?`, text, ok: "Remove", danger: true }))) return;
      const done = async () => !(await classesOf(task)).includes(name);
      if (await change(`remove “${name}”`, () => api.deleteClass(task, name), done)) say(`${name} removed.`);
    },
    async removeExample(task, { id, label }) {
      let blob;
      const there = async () => (await api.examples(task)).some((example) => example.id === id);
      const done = async () => !(await there().catch((problem) => problem.status !== 404 && Promise.reject(problem)));
      const action = async () => {
        blob = await blobOf(task, id).catch((problem) => (problem.status ? null : Promise.reject(problem)));
        await api.deleteExample(task, id);
      };
      if (!(await change(`remove an example of “${label}”`, action, done))) return;
      const undo = () => bringBack(task, label, { blob, name: "example.png" });
      toast(`One example of “${label}” removed.`, { undo: blob && store.current === task && undo });
    },
    async createTask() {
      const text = "A task has classes of its own.";
      const name = await ask({ title: "New task", text, field: "Name", ok: "Create" });
      if (!name) return;
      const known = new Set(store.tasks.map(({ id }) => id));
      const done = async () => (await api.tasks()).some((task) => task.name === name && !known.has(task.id));
      const action = async () => {
        const task = await api.createTask(name);
        store.tasks = [...store.tasks, task];
        open(task.id);
      };
      await change(`create the task “${name}”`, action, done);
    },
    async deleteTask({ id, name }, examples) {
      const text = `Its classes and ${plural(examples, "example")} will be gone for good.`;
      if (!(await ask({ title: `Delete “${name}”?`, text, ok: "Delete task", danger: true }))) return;
      const action = async () => {
        await api.deleteTask(id);
        store.tasks = store.tasks.filter((task) => task.id !== id);
        if (store.current === id) open(null);
      };
      const done = async () => (await api.tasks()).every((task) => task.id !== id);
      await change(`delete the task “${name}”`, action, done);
    },
  };
}
