// The answer to what is on the second pad, and the map.

import { Refused, api } from "./api.js";
import { attempt } from "./attempts.js";
import { $ } from "./dom.js";
import { showMap } from "./map.js";
import { say } from "./notices.js";
import { hold } from "./pictures.js";
import { showHint, showPrediction, spoken } from "./results.js";
import { store } from "./store.js";

const PAUSE = 150; // milliseconds of stillness before a drawing is classified

export class Answers {
  #pad;
  #gone;
  #waiting;
  #request;
  #asked = () => {};

  // gone(): what to do where the task is not there any more.
  constructor(pad, gone) {
    this.#pad = pad;
    this.#gone = gone;
  }

  // Classify what is on the pad and draw the map, once nothing has changed for a moment.
  look(pause = PAUSE) {
    this.#stop();
    hold(new Promise((asked) => (this.#asked = asked)));
    $("result").setAttribute("aria-busy", "true");
    this.#waiting = setTimeout(() => attempt(() => this.#now()), pause);
  }

  wait() {
    clearTimeout(this.#waiting);
  }

  // Nothing of another task stays to be seen.
  clear() {
    this.#stop();
    showHint($("result"), "Loading …");
    showMap($("plot"), $("legend"), { points: [] });
  }

  #stop() {
    this.wait();
    this.#request?.abort();
    this.#asked();
  }

  async #now() {
    const asked = this.#asked;
    const { signal } = (this.#request = new AbortController());
    try {
      if (!store.loaded) return;
      await (this.#pad.empty || store.taught < 2 ? this.#map(signal) : this.#answer(signal, asked));
    } catch (problem) {
      if (problem.name === "AbortError") return;
      if (!(problem instanceof Refused)) throw problem;
      showHint($("result"), problem.message);
      if (problem.status === 404) await this.#gone();
    } finally {
      asked();
    }
  }

  async #map(signal) {
    $("correct-form").hidden = this.#pad.empty;
    showHint($("result"), hint(store.taught));
    const map = store.taught ? await api.map(store.current, null, signal) : { points: [] };
    if (!signal.aborted) showMap($("plot"), $("legend"), map);
  }

  async #answer(signal, asked) {
    const task = store.current;
    const files = await this.#pad.pictures();
    if (signal.aborted) return;
    const both = Promise.all([api.classify(task, files, signal), api.map(task, files, signal)]);
    asked();
    const [answer, map] = await both;
    if (signal.aborted) return;
    const prediction = answer.predictions[0];
    showPrediction($("result"), prediction);
    showMap($("plot"), $("legend"), map, prediction);
    $("correct-form").hidden = false;
    say(spoken(prediction));
  }
}

function hint(taught) {
  if (taught === 0) return "First teach two classes.";
  if (taught === 1) return "One class is there. Teach a second one, so that there is something to tell apart.";
  return "Draw here to see which class it is.";
}
