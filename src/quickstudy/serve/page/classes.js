// The list of classes with their examples.

import { $, el, keepFocus, plural } from "./dom.js";
import { icon } from "./marks.js";
import { forgetImages, picture } from "./pictures.js";

const SHOWN = 12; // pictures of a class until one asks for all
const FOLD = 20; // classes until one asks for all, or for some by their name

const open = new Set(); // classes of which all pictures are shown
const used = new Set(); // classes that are shown wherever they stand, as something was done with them
let unfolded = false;
let last;

// What the list looks like belongs to one task.
export function forgetClasses() {
  open.clear();
  used.clear();
  unfolded = false;
  $("filter").value = "";
}

export const reveal = (name) => used.add(name.normalize("NFC"));

// classes: [{name, examples}]; examples: [{id, label}] of that task.
export function showClasses(root, { task, classes, examples, actions }) {
  last = { task, classes, examples, actions };
  const of = byLabel(examples);
  $("filter").hidden = classes.length <= FOLD;
  const letters = $("filter").hidden ? "" : plain($("filter").value);
  const found = classes.filter(({ name }) => plain(name).includes(letters));
  const shown = unfolded ? found : found.filter(({ name }, i) => i < FOLD || used.has(name));
  const rest = found.length - shown.length;
  const all = () => ((unfolded = true), again());
  keepFocus(root, () => {
    forgetImages();
    root.replaceChildren(
      ...shown.map(({ name }) => card(name, of.get(name) ?? [], task, actions)),
      ...(rest ? [el("li", { class: "class" }, quiet(`Show ${plural(rest, "more class", "more classes")}`, all))] : []),
      ...(classes.length && !found.length ? [el("li", { class: "empty" }, "No class has a name like this.")] : []),
    );
  });
}

const again = () => showClasses($("classes"), last);
const plain = (text) => text.trim().normalize("NFC").toLowerCase();

$("filter").addEventListener("input", again);

function byLabel(examples) {
  const found = new Map();
  for (const example of examples) {
    if (!found.has(example.label)) found.set(example.label, []);
    found.get(example.label).push(example);
  }
  return found;
}

const quiet = (text, onclick, more = {}) =>
  el("button", { type: "button", class: "quiet small", onclick, ...more }, text);

function card(name, examples, task, actions) {
  const shown = open.has(name) ? examples : examples.slice(0, SHOWN);
  const more = examples.length - shown.length;
  const button = (word, about, action) => quiet(word, action, { "aria-label": about, "data-key": `${word} ${name}` });
  const all = () => (open.add(name), again());
  return el(
    "li",
    { class: "class", "data-drop": name },
    el(
      "div",
      { class: "class-head" },
      icon(name),
      el("span", { class: "class-name", title: name }, name),
      el("span", { class: "count" }, examples.length ? plural(examples.length, "example") : "no examples yet"),
      el(
        "span",
        { class: "class-tools" },
        button("Add more", `Add more examples of ${name}`, () => actions.more(name)),
        button("Rename", `Rename ${name}`, () => actions.rename(task, name)),
        button("Remove", `Remove ${name}`, () => actions.remove(task, name, examples.length)),
      ),
    ),
    el(
      "ul",
      { class: "thumbs", "aria-label": `Examples of ${name}` },
      shown.map((example, i) => thumb(example, i, name, task, actions)),
      more > 0 ? el("li", {}, button(`+ ${more}`, `Show ${more} more examples of ${name}`, all)) : null,
    ),
  );
}

function thumb(example, i, name, task, actions) {
  const image = el("img", { alt: `Example ${i + 1} of ${name}`, width: 56, height: 56 });
  picture(image, task, example.id);
  return el(
    "li",
    { class: "thumb" },
    image,
    el(
      "button",
      {
        type: "button",
        class: "cross",
        title: "Remove this example",
        "aria-label": `Remove example ${i + 1} of ${name}`,
        onclick: () => actions.removeExample(task, example),
      },
      "×",
    ),
  );
}
