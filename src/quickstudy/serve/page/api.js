// The server's HTTP interface. Three things can go wrong, and each is an error of its own.

import { keep, kept } from "./kept.js";

export class ServerGone extends Error {} // or its answer was lost: nobody knows what was done
export class TokenNeeded extends Error {}
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const KEY = "quickstudy.token";
const PATIENCE = 30_000; // milliseconds until a server that keeps silent counts as gone
export const TOKEN = "[ -~]+"; // what a token is made of; a header could not carry anything else

export const token = {
  get: () => (new RegExp(`^${TOKEN}$`).test(kept(KEY) ?? "") ? kept(KEY) : ""),
  set: (value) => keep(KEY, value),
};

// read: takes the answer's body, which may be cut as well.
async function ask(method, path, read, { json, files, label, signal } = {}) {
  const headers = {};
  let body;
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  } else if (files) {
    body = new FormData();
    if (label !== undefined) body.append("label", label);
    for (const { blob, name } of files) body.append("files", blob, name);
  }
  const patience = AbortSignal.timeout(PATIENCE);
  let status, answer;
  try {
    const until = signal ? AbortSignal.any([signal, patience]) : patience;
    const response = await fetch(path, { method, headers, body, signal: until });
    if (response.ok) return await read(response);
    status = response.status;
    answer = await response.json().catch(() => null);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServerGone("the server does not answer");
  }
  if (status === 401) throw new TokenNeeded("the server asks for a token");
  if ([502, 503, 504].includes(status)) throw new ServerGone("the server does not answer");
  throw new Refused(answer?.error ?? `The server answered ${status} without saying why.`, status);
}

const json = (method, path, content) => ask(method, path, (response) => response.json(), content);
const blob = (path) => ask("GET", path, (response) => response.blob());

// What is not there any more is gone, which is all that was wanted.
const remove = (path) =>
  ask("DELETE", path, () => null).catch((problem) => {
    if (problem.status !== 404) throw problem;
  });

const part = encodeURIComponent;
const of = (task, ...rest) => ["tasks", task, ...rest].map(part).join("/");

export const api = {
  health: () => json("GET", "health"),
  tasks: () => json("GET", "tasks"),
  createTask: (name) => json("POST", "tasks", { json: { name } }),
  deleteTask: (task) => remove(of(task)),
  renameClass: (task, name, to) => json("PATCH", of(task, "classes", name), { json: { name: to } }),
  deleteClass: (task, name) => remove(of(task, "classes", name)),
  examples: (task) => json("GET", of(task, "examples")),
  addExamples: (task, label, files) => json("POST", of(task, "examples"), { label, files }),
  deleteExample: (task, example) => remove(of(task, "examples", example)),
  picture: (task, example) => blob(of(task, "examples", `${example}.png`)),
  classify: (task, files, signal) =>
    json("POST", `${of(task, "classify")}?coverage=0.9&false_alarms=0.05`, { files, signal }),
  map: (task, files, signal) => json(files ? "POST" : "GET", of(task, "map"), { files: files ?? undefined, signal }),
  model: (task) => blob(of(task, "model")),
};
