// The answer to the drawing on the second pad.

import { el, put } from "./dom.js";

const SHOWN = 6; // classes of the ranking

function percent(p) {
  if (p > 0.995 && p < 1) return "> 99 %";
  if (p < 0.005 && p > 0) return "< 1 %";
  return `${Math.round(100 * p)} %`;
}

const listed = (names) => names.map((name) => `“${name}”`).join(names.length > 2 ? ", " : " or ");

export function showHint(root, text) {
  root.setAttribute("aria-busy", "false");
  put(root, el("p", { class: "empty" }, text));
}

// prediction: {label, unknown, unknown_score, ranking: [{label, probability}], set: [label]}
export function showPrediction(root, { label, unknown, unknown_score, ranking, set }) {
  root.setAttribute("aria-busy", "false");
  const best = ranking[0];
  const rest = ranking.length - SHOWN;
  const bar = (probability) => {
    const node = el("span", { class: "bar", "aria-hidden": "true" });
    node.style.setProperty("--part", probability); // through the object model, which the content policy allows
    return node;
  };
  put(
    root,
    el(
      "p",
      { class: unknown ? "answer unknown" : "answer" },
      el("strong", {}, unknown ? "Unknown" : label),
      unknown ? null : el("span", { class: "sure" }, percent(best.probability)),
    ),
    unknown ? el("p", { class: "note" }, "Not like any class so far. If it had to be one of them:") : null,
    el(
      "ol",
      { class: unknown ? "ranking doubtful" : "ranking", "aria-label": "All classes by probability" },
      ranking.slice(0, SHOWN).map((entry) =>
        el(
          "li",
          {},
          el("span", { class: "who", title: entry.label }, entry.label),
          bar(entry.probability),
          el("span", { class: "number" }, percent(entry.probability)),
        ),
      ),
    ),
    rest > 0 ? el("p", { class: "note" }, `and ${rest} more below ${percent(ranking[SHOWN - 1].probability)}`) : null,
    setLine(set, ranking),
    unknown_score === null ? el("p", { class: "note" }, "Too few examples to recognise what is unknown.") : null,
  );
}

function setLine(set, ranking) {
  if (!set) return null;
  const more = set.length > 5 ? ` or ${set.length - 5} more` : "";
  let text = listed(set.slice(0, 5)) + more;
  if (!set.length) text = "none of them";
  else if (set.length > 2 && set.length === ranking.length) text = "any of them";
  const about = "A set made like this holds the right class nine times in ten.";
  return el("p", { class: "note", title: about }, `90 % set: ${text}`);
}

export const spoken = ({ label, unknown, ranking }) =>
  unknown
    ? `Unknown. Nearest: ${ranking[0].label}.`
    : `${label}, ${percent(ranking[0].probability)}.`;
