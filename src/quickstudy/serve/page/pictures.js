// Pictures of examples: fetched by script, as an <img> sends no token, and only once they come into view.

import { api } from "./api.js";

const NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="; // one transparent pixel
const AT_ONCE = 4; // of the browser's six connections, so that an answer never waits for pictures

const blobs = new Map(); // example id -> promise of a blob
const addresses = new Map(); // example id -> address of that blob
const wanted = new Map(); // <img> -> {task, example}
const queue = [];
let running = 0;
let held = Promise.resolve();

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting && wanted.has(target)) fetchFor(target);
  },
  { rootMargin: "200px" },
);

// Show an example in an <img>.
export function picture(image, task, example) {
  if (addresses.has(example)) image.src = addresses.get(example);
  else {
    image.src = NOTHING;
    wanted.set(image, { task, example });
    watcher.observe(image);
  }
}

// The elements of before are gone.
export function forgetImages() {
  watcher.disconnect();
  wanted.clear();
}

// Only these examples are left.
export function keepOnly(examples) {
  const left = new Set(examples.map(({ id }) => id));
  for (const id of blobs.keys()) if (!left.has(id)) blobs.delete(id);
  for (const [id, address] of addresses) {
    if (left.has(id)) continue;
    URL.revokeObjectURL(address);
    addresses.delete(id);
  }
}

// Let no picture be asked for before this promise is kept.
export const hold = (promise) => (held = promise);

export function blobOf(task, example) {
  if (!blobs.has(example)) {
    const blob = api.picture(task, example);
    blob.catch(() => blobs.delete(example));
    blobs.set(example, blob);
  }
  return blobs.get(example);
}

function fetchFor(image) {
  queue.push({ image, ...wanted.get(image) });
  wanted.delete(image);
  watcher.unobserve(image);
  next();
}

async function next() {
  if (running === AT_ONCE || !queue.length) return;
  running++;
  for (let before; before !== held; ) await (before = held); // a later look holds them longer
  const { image, task, example } = queue.shift() ?? {};
  if (image?.isConnected) {
    const blob = await blobOf(task, example).catch(() => null);
    if (!blob) image.removeAttribute("src"); // its words stand there instead
    else if (blobs.has(example)) {
      if (!addresses.has(example)) addresses.set(example, URL.createObjectURL(blob));
      image.src = addresses.get(example);
    }
  }
  running--;
  next();
}
