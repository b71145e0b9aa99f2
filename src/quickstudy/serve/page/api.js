// The server's HTTP interface. Three things can go wrong, and each is an error of its own.

export class ServerGone extends Error {}
export class TokenNeeded extends Error {}
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const KEY = "quickstudy.token";
const PATIENCE = 30_000; // milliseconds until a server that keeps silent counts as gone

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

async function ask(method, path, { json, files, label, signal } = {}) {
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
  let response;
  try {
    const until = signal ? AbortSignal.any([signal, patience]) : patience;
    response = await fetch(path, { method, headers, body, signal: until });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServerGone("the server does not answer");
  }
  if (response.ok) return response;
  if (response.status === 401) throw new TokenNeeded("the server asks for a token");
  if ([502, 503, 504].includes(response.status)) throw new ServerGone("the server does not answer");
  const answer = await response.json().catch(() => ({}));
  throw new Refused(answer.error ?? `The server answered ${response.status} without saying why.`, response.status);
}

const json = async (...request) => (await ask(...request)).json();
const part = encodeURIComponent;
const of = (task, ...rest) => ["tasks", task, ...rest].map(part).join("/");

export const api = {
  health: () => json("GET", "health"),
  tasks: () => json("GET", "tasks"),
  task: (id) => json("GET", of(id)),
  createTask: (name) => json("POST", "tasks", { json: { name } }),
  deleteTask: (id) => ask("DELETE", of(id)),
  renameClass: (id, name, to) => ask("PATCH", of(id, "classes", name), { json: { name: to } }),
  deleteClass: (id, name) => ask("DELETE", of(id, "classes", name)),
  examples: (id) => json("GET", of(id, "examples")),
  addExamples: (id, label, files) => json("POST", of(id, "examples"), { label, files }),
  deleteExample: (id, example) => ask("DELETE", of(id, "examples", example)),
  picture: async (id, example) => (await ask("GET", of(id, "examples", `${example}.png`))).blob(),
  classify: (id, files, signal) =>
    json("POST", `${of(id, "classify")}?coverage=0.9&false_alarms=0.05`, { files, signal }),
  map: (id, files, signal) =>
    files ? json("POST", of(id, "map"), { files, signal }) : json("GET", of(id, "map"), { signal }),
  model: async (id) => (await ask("GET", of(id, "model"))).blob(),
};
