// A class's mark on the map and in the lists: a shape and a colour, so that neither has to be told apart alone.

import { svg } from "./dom.js";

const SHAPES = [
  "M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z", // disc
  "M-4.5-4.500H4.500V4.500H-4.500Z", // square
  "M0-5.5 5.5 4.500H-5.500Z", // triangle
  "M0-6.5 5.5 0 0 6.5-5.5 0Z", // diamond
  "M-1.8-5.500H1.800V-1.800H5.500V1.800H1.800V5.500H-1.800V1.800H-5.500V-1.800H-1.800Z", // plus
  "M0 5.5-5.5-4.500H5.500Z", // triangle on its tip
  "M0-6.5 1.7-2.2 6.2-2 2.7.9 3.9 5.3 0 2.8-3.9 5.3-2.7.9-6.2-2-1.7-2.200Z", // star
  "M-5.5-3.2-3.2-5.5 0-2.3 3.2-5.5 5.5-3.2 2.3 0 5.5 3.2 3.2 5.5 0 2.3-3.2 5.5-5.5 3.2-2.3 0Z", // cross
];
const COLOURS = 7; // no common factor with the shapes: 56 different marks

let given = new Map();

export const forgetMarks = () => (given = new Map());

// A class keeps its mark while the page is open, also when others come and go.
export function mark(name, attributes = {}) {
  if (!given.has(name)) given.set(name, given.size);
  const n = given.get(name);
  return svg("path", { d: SHAPES[n % SHAPES.length], ...attributes, class: `mark c${n % COLOURS}` });
}

export const icon = (name) =>
  svg("svg", { viewBox: "-8 -8 16 16", class: "icon", "aria-hidden": "true" }, mark(name));
