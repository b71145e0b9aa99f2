// What the server knows, as the page last heard it. The server is the only place where anything is kept.

import { api } from "./api.js";
import { batches } from "./images.js";

export class Store {
  tasks = [];
  current = null; // a task's id
  classes = []; // [{name, examples}]
  examples = []; // [{id, label}]
  #pictures = new Map(); // example id -> promise of a blob
  #addresses = new Map(); // example id -> address of that blob

  get task() {
    return this.tasks.find((task) => task.id === this.current) ?? null;
  }

  get taught() {
    return this.classes.filter((c) => c.examples > 0).length;
  }

  // Read the list of tasks, and all of the one that is open: the wanted one, or the newest.
  async load(wanted) {
    this.tasks = await api.tasks();
    const found = this.tasks.find((task) => task.id === wanted) ?? this.tasks.at(-1);
    await this.#open(found?.id ?? null);
  }

  async refresh() {
    await this.load(this.current);
  }

  async #open(id) {
    const [task, examples] = id ? await Promise.all([api.task(id), api.examples(id)]) : [{ classes: [] }, []];
    this.current = id;
    this.classes = task.classes;
    this.examples = examples;
    const kept = new Set(examples.map((example) => example.id));
    for (const [example, address] of this.#addresses) {
      if (kept.has(example)) continue;
      URL.revokeObjectURL(address);
      this.#addresses.delete(example);
      this.#pictures.delete(example);
    }
  }

  async createTask(name) {
    const { id } = await api.createTask(name);
    await this.load(id);
  }

  async deleteTask() {
    await api.deleteTask(this.current);
    await this.load(null);
  }

  // Files go in one batch after the other; what was stored before one is refused stays stored.
  async add(label, files) {
    if (!this.current) await this.createTask("My first task");
    try {
      for (const batch of batches(files)) await api.addExamples(this.current, label, batch);
    } finally {
      await this.refresh();
    }
  }

  async removeExample(example) {
    await api.deleteExample(this.current, example.id);
    await this.refresh();
  }

  async removeClass(name) {
    await api.deleteClass(this.current, name);
    await this.refresh();
  }

  async renameClass(name, to) {
    await api.renameClass(this.current, name, to);
    await this.refresh();
  }

  blob(example) {
    if (!this.#pictures.has(example)) {
      const wanted = api.picture(this.current, example);
      wanted.catch(() => this.#pictures.delete(example));
      this.#pictures.set(example, wanted);
    }
    return this.#pictures.get(example);
  }

  // An address for an <img>; null where the picture cannot be had. Fetched by script, as an <img> sends no token.
  async picture(example) {
    const blob = await this.blob(example).catch(() => null);
    if (!blob) return null;
    if (!this.#addresses.has(example)) this.#addresses.set(example, URL.createObjectURL(blob));
    return this.#addresses.get(example);
  }
}
