// The support set in the plane: two principal directions of the learner's embedding, drawn as SVG.

import { el, plural, svg } from "./dom.js";
import { icon, mark } from "./marks.js";

const HEIGHT = 300;
const MARGIN = 34;
const WIDTHS = { least: 280, most: 640, else: 440 }; // of the drawing in its own units, one for each pixel of the page
const LABELS = 12; // classes until names on the map would cover it; the legend has them all

export function showMap(plot, legend, { points, queries = [] }, prediction) {
  const names = [...new Set(points.map((point) => point.label))];
  legend.replaceChildren(
    ...(queries.length ? [el("li", {}, hereIcon(), "your drawing")] : []),
    ...names.map((name) => el("li", {}, icon(name), el("span", { title: name }, name))),
  );
  if (names.length > LABELS) legend.tabIndex = 0; // it may scroll
  else legend.removeAttribute("tabindex");
  if (!points.length) {
    plot.replaceChildren(el("p", { class: "empty" }, "Nothing to show yet: add some examples first."));
    return;
  }
  const width = Math.min(Math.max(plot.clientWidth || WIDTHS.else, WIDTHS.least), WIDTHS.most);
  const reach = Math.max(1, ...[...points, ...queries].flatMap(({ x, y }) => [Math.abs(x), Math.abs(y)]));
  const at = ({ x, y }) => [
    width / 2 + (x / reach) * (width / 2 - MARGIN),
    HEIGHT / 2 - (y / reach) * (HEIGHT / 2 - MARGIN),
  ];
  const place = (node, point) => {
    node.setAttribute("transform", `translate(${at(point).map((v) => v.toFixed(1)).join(" ")})`);
    return node;
  };
  plot.replaceChildren(
    svg(
      "svg",
      { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": inWords(points, names, queries, prediction) },
      svg("path", { class: "axes", d: `M${width / 2} 8V${HEIGHT - 8}M8 ${HEIGHT / 2}H${width - 8}` }),
      points.map((point) => {
        const node = place(mark(point.label), point);
        node.append(svg("title", {}, point.label));
        return node;
      }),
      queries.map((query) => place(here(), query)),
      names.length <= LABELS ? labels(points, names, at, width) : null,
    ),
  );
}

// The drawing's own sign: a ring with a dot.
const here = () => svg("g", { class: "here" }, svg("circle", { r: 9 }), svg("circle", { r: 2.5, class: "dot" }));

const hereIcon = () => svg("svg", { viewBox: "-11 -11 22 22", class: "icon", "aria-hidden": "true" }, here());

// A name above the middle of its class; one that would cover another moves away from it.
function labels(points, names, at, width) {
  const placed = [];
  for (const name of names) {
    const own = points.filter((point) => point.label === name).map(at);
    const text = name.length > 16 ? `${name.slice(0, 15)}…` : name;
    const half = 4 + text.length * 3.6;
    const mean = own.reduce((sum, [left]) => sum + left / own.length, 0);
    const x = Math.min(Math.max(mean, half), width - half);
    let y = Math.max(14, Math.min(...own.map(([, top]) => top)) - 11);
    const covers = (other) => Math.abs(other.x - x) < other.half + half && Math.abs(other.y - y) < 14;
    for (let tries = 0; tries < LABELS && placed.some(covers); tries++) y += y > HEIGHT / 2 ? -14 : 14;
    placed.push({ x, y, half, text });
  }
  return placed.map(({ x, y, text }) => svg("text", { x: x.toFixed(1), y: y.toFixed(1), class: "label" }, text));
}

function inWords(points, names, [query], prediction) {
  const all = `Map of ${plural(points.length, "example")} of ${plural(names.length, "class", "classes")}`;
  if (!query) return `${all}.`;
  const far = (point) => Math.hypot(point.x - query.x, point.y - query.y);
  const nearest = points.reduce((best, point) => (far(point) < far(best) ? point : best));
  const verdict = prediction?.unknown ? ", and is unknown" : "";
  return `${all}. Your drawing lies nearest to an example of ${nearest.label}${verdict}.`;
}
