// The list of classes with their examples.

import { el, keepFocus, plural } from "./dom.js";
import { icon } from "./marks.js";

const SHOWN = 12; // pictures of a class until one asks for all
const open = new Set(); // classes of which all pictures are shown

// classes: [{name, examples}]; examples: [{id, label}]; picture(id) -> promise of an address for an <img>.
export function showClasses(root, { classes, examples, picture, actions }) {
  const of = byLabel(examples);
  const again = () => showClasses(root, { classes, examples, picture, actions });
  const cards = () => classes.map(({ name }) => card(name, of.get(name) ?? [], picture, actions, again));
  keepFocus(root, () => root.replaceChildren(...cards()));
}

function byLabel(examples) {
  const found = new Map();
  for (const example of examples) {
    if (!found.has(example.label)) found.set(example.label, []);
    found.get(example.label).push(example);
  }
  return found;
}

function card(name, examples, picture, actions, again) {
  const shown = open.has(name) ? examples : examples.slice(0, SHOWN);
  const more = examples.length - shown.length;
  const button = (word, about, action) =>
    el(
      "button",
      { type: "button", class: "quiet small", "aria-label": about, "data-key": `${word} ${name}`, onclick: action },
      word,
    );
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
        button("Rename", `Rename ${name}`, () => actions.rename(name)),
        button("Remove", `Remove ${name}`, () => actions.remove(name, examples.length)),
      ),
    ),
    el(
      "ul",
      { class: "thumbs", "aria-label": `Examples of ${name}` },
      shown.map((example, i) => thumb(example, i, name, picture, actions)),
      more > 0 ? el("li", {}, button(`+ ${more}`, `Show ${more} more examples of ${name}`, all)) : null,
    ),
  );
}

function thumb(example, i, name, picture, actions) {
  const image = el("img", { alt: `Example ${i + 1} of ${name}`, width: 56, height: 56 });
  picture(example.id).then((address) => address && (image.src = address));
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
        onclick: () => actions.removeExample(example),
      },
      "×",
    ),
  );
}
