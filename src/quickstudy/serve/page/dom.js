// Small helpers to build elements. Text always goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

// The children take the place of what was in the element; null and undefined stand for nothing.
export const put = (root, ...children) => root.replaceChildren(...children.flat().filter((child) => child != null));

export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

// Rebuild part of the page and keep the keyboard where it was: on the element with the same data-key, or, where that
// is gone, on the nearest one that is left of the same kind.
export function keepFocus(root, rebuild) {
  const active = root.contains(document.activeElement) ? document.activeElement : null;
  const before = active ? focusable(root) : [];
  const place = before.indexOf(active);
  rebuild();
  if (!active || root.contains(document.activeElement)) return;
  const after = focusable(root);
  const same = after.find((node) => node.dataset.key && node.dataset.key === active.dataset.key);
  (same ?? after[Math.min(place, after.length - 1)])?.focus();
}

const focusable = (root) => [...root.querySelectorAll("button:not([disabled]), input, a[href]")];
