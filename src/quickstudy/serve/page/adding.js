// Adding examples: in batches, to the task that was open when it was asked for.

import { Refused, api } from "./api.js";
import { attempt, isUnsure } from "./attempts.js";
import { plural } from "./dom.js";
import { batch } from "./images.js";
import { store } from "./store.js";

// task: an id, or null where there is none yet. files: [{blob, name}].
// source: as for attempt. error: the element for a refusal. stored(files) is called for each batch once
// the server has it, with true where that was found out later; progress(text) before each batch.
// Resolves to the files that were not stored, and whether the server answered.
export async function addExamples(task, label, files, { source, error, stored = () => {}, progress = () => {} }) {
  let rest = files;
  let sent = []; // the batch that is under way
  let before; // ids of examples that were there before it
  const words = (some) => (some.length ? `add ${plural(some.length, "example")} of “${label}”` : null);

  // All of a batch is stored or nothing: as many new examples as were sent are those.
  async function check() {
    const now = sent.length ? await api.examples(task).catch(nothingThere) : [];
    const fresh = now.filter((example) => example.label === label.normalize("NFC") && !before.has(example.id));
    if (!sent.length || fresh.length !== sent.length) return { done: null, left: words(rest) };
    const done = sent;
    take(now);
    stored(done, true);
    return { done: words(done), left: words(rest) };
  }

  function take(examples) {
    for (const { id } of examples) store.seen.add(id);
    rest = rest.slice(sent.length);
    sent = [];
  }

  async function send() {
    task ??= store.current ?? (await store.firstTask());
    while (rest.length) {
      const next = batch(rest);
      const now = files.length - rest.length + next.length;
      if (next.length < files.length) progress(`Adding ${now} of ${files.length} …`);
      before = new Set(store.seen);
      sent = next;
      const { examples } = await api.addExamples(task, label, next);
      take(examples);
      stored(next, false);
    }
  }

  async function action() {
    try {
      await send();
    } catch (problem) {
      const some = files.length - rest.length;
      if (!(problem instanceof Refused) || !some) throw problem;
      throw new Refused(`${some} of ${files.length} were added, then: ${problem.message}`, problem.status);
    }
  }

  const change = { source, check, get what() { return words(rest); } };
  await attempt(action, { error, change });
  return { rest, answered: !isUnsure(change) };
}

function nothingThere(problem) {
  if (problem.status !== 404) throw problem;
  return [];
}
