// What the server knows, as the page last heard it. The server is the only place where anything is kept.

import { api } from "./api.js";

class Store {
  tasks = []; // [{id, name, classes}]
  current = null; // the id of the task that is open
  loaded = false; // whether classes and examples are those of that task
  missing = false; // whether another task was wanted than could be opened
  classes = []; // [{name, examples}]
  examples = []; // [{id, label}]
  seen = new Set(); // ids of all examples the server ever told of
  #load = 0; // number of the last load: an earlier one that comes in late changes nothing
  #first = null;

  get task() {
    return this.tasks.find((task) => task.id === this.current) ?? null;
  }

  get taught() {
    return this.classes.filter((c) => c.examples > 0).length;
  }

  // From now on this task is the one that is open; what is in it has to be loaded.
  open(task) {
    this.#load++;
    this.current = task;
    this.classes = this.examples = [];
    this.loaded = false;
  }

  // Read the list of tasks, and all of the open one, or of the newest where that is not there. False: overtaken.
  async load() {
    const number = ++this.#load;
    let tasks, task, examples;
    try {
      tasks = await api.tasks();
      task = tasks.find(({ id }) => id === this.current) ?? tasks.at(-1) ?? null;
      examples = task ? await api.examples(task.id) : [];
    } catch (problem) {
      if (number !== this.#load) return false;
      if (problem.status === 404) return this.load(); // deleted between the two
      throw problem;
    }
    if (number !== this.#load) return false;
    this.missing = this.current !== null && this.current !== task?.id;
    this.tasks = tasks;
    this.current = task?.id ?? null;
    this.classes = task?.classes ?? [];
    this.examples = examples;
    for (const { id } of examples) this.seen.add(id);
    this.loaded = true;
    return true;
  }

  // A task for who adds something before there is any; one, however many add at once.
  async firstTask() {
    this.#first ??= api.createTask("My first task").finally(() => (this.#first = null));
    const { id } = await this.#first;
    this.current ??= id;
    return id;
  }
}

export const store = new Store();
