// A square to draw on or to drop images on. It holds strokes or images, never both; every change can be undone.

import { $, plural } from "./dom.js";
import { prepare } from "./images.js";
import { keep, kept } from "./kept.js";

const SIDE = 105; // units of the drawing, and pixels of the picture that is sent
const PEN = 3; // width of a stroke in units
const EMPTY = { strokes: [], files: [] };

export class Pad extends EventTarget {
  #canvas;
  #state = EMPTY;
  #past = [];
  #current = null; // the stroke under the pen
  #key;

  constructor(root, { name, ghost, choose, multiple = false }) {
    super();
    this.root = root;
    this.name = name;
    this.#key = `quickstudy.${name}`;
    root.append($("pad-template").content.cloneNode(true));
    this.#canvas = root.querySelector("canvas");
    root.querySelector(".ghost").textContent = ghost;
    const input = root.querySelector("input");
    input.multiple = multiple;
    input.addEventListener("change", () => this.take([...input.files]).then(() => (input.value = "")));
    root.querySelector(".choose").textContent = choose;
    root.querySelector(".choose").addEventListener("click", () => input.click());
    root.querySelector(".undo").addEventListener("click", () => this.undo());
    root.querySelector(".clear").addEventListener("click", () => this.clear());
    this.#listen();
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    const strokes = JSON.parse(kept(this.#key) ?? "[]");
    if (strokes.length) this.#state = { strokes, files: [] };
    this.#past = strokes.map((_, i) => ({ strokes: strokes.slice(0, i), files: [] }));
    this.#show();
  }

  get empty() {
    return !this.#state.strokes.length && !this.#state.files.length;
  }

  get state() {
    return this.#state;
  }

  // Image files (drop, choose, paste) take the place of what is on the pad.
  async take(files) {
    if (!files.length) return;
    const wanted = this.root.querySelector("input").multiple ? files : files.slice(0, 1);
    this.hold(await Promise.all(wanted.map(prepare)));
  }

  // The same with files that are prepared.
  hold(files) {
    this.#change({ strokes: [], files });
  }

  // What is sent: the images, or the drawing as dark ink on white.
  async pictures() {
    if (this.#state.files.length) return this.#state.files;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIDE, SIDE);
    trace(context, this.#state.strokes, "#000");
    return [{ blob: await new Promise((done) => canvas.toBlob(done, "image/png")), name: "drawing.png" }];
  }

  undo() {
    if (this.#past.length) this.#change(this.#past.pop(), false);
  }

  clear() {
    if (!this.empty) this.#change(EMPTY);
  }

  // After what was there has been stored: take it off, but leave what was drawn since. undoable: Undo brings it back.
  done(sent, undoable = false) {
    const drawn = this.#state.strokes.filter((stroke) => !sent.strokes.includes(stroke));
    const files = this.#state.files.filter((file) => !sent.files.includes(file));
    this.#past = this.#past.filter((state) => state.strokes.some((stroke) => !sent.strokes.includes(stroke)));
    this.#change({ strokes: drawn, files }, undoable);
  }

  #change(state, undoable = true) {
    if (undoable) this.#past.push(this.#state);
    this.#state = state;
    keep(this.#key, JSON.stringify(state.strokes));
    this.#show();
    this.dispatchEvent(new Event("change"));
  }

  #listen() {
    const canvas = this.#canvas;
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      const unit = (value, start, length) => Math.round(((value - start) / length) * SIDE * 10) / 10;
      return [unit(event.clientX, box.left, box.width), unit(event.clientY, box.top, box.height)];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#current = [point(event)];
      this.dispatchEvent(new Event("pen"));
      this.#draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.#current || !event.isPrimary) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const [x, y] of (events.length ? events : [event]).map(point)) {
        const [lastX, lastY] = this.#current.at(-1);
        if (Math.hypot(x - lastX, y - lastY) >= 0.7) this.#current.push([x, y]);
      }
      this.#draw();
    });
    const lift = (event) => {
      if (!this.#current || !event.isPrimary) return;
      const stroke = this.#current;
      this.#current = null;
      this.#change({ strokes: [...this.#state.strokes, stroke], files: [] });
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
  }

  #show() {
    const { strokes, files } = this.#state;
    const drawn = strokes.length ? plural(strokes.length, "stroke") : "empty";
    const holds = files.length ? plural(files.length, "image") : drawn;
    const how = "Draw with mouse, pen or finger, or choose an image.";
    this.#canvas.setAttribute("aria-label", `Drawing area, ${holds}. ${how}`);
    this.root.querySelector(".undo").disabled = !this.#past.length;
    this.root.querySelector(".clear").disabled = this.empty;
    this.#draw();
  }

  #draw() {
    const canvas = this.#canvas;
    const pixels = Math.round(canvas.clientWidth * devicePixelRatio);
    if (!pixels) return;
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    const context = canvas.getContext("2d");
    context.setTransform(pixels / SIDE, 0, 0, pixels / SIDE, 0, 0);
    context.clearRect(0, 0, SIDE, SIDE);
    const files = this.#current ? [] : this.#state.files;
    const strokes = this.#state.files.length ? [] : this.#state.strokes;
    this.root.classList.toggle("blank", !files.length && !strokes.length && !this.#current);
    const ink = getComputedStyle(canvas).color;
    sheet(context, files, ink);
    trace(context, this.#current ? [...strokes, this.#current] : strokes, ink);
  }
}

// Strokes as smooth lines through the middles of their pieces; a single point is a dot.
function trace(context, strokes, ink) {
  context.strokeStyle = ink;
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  for (const points of strokes) {
    context.beginPath();
    context.moveTo(...points[0]);
    for (let i = 1; i < points.length - 1; i++) {
      const [x, y] = points[i];
      context.quadraticCurveTo(x, y, (x + points[i + 1][0]) / 2, (y + points[i + 1][1]) / 2);
    }
    context.lineTo(...points.at(-1));
    context.stroke();
  }
}

// The first images side by side, each whole.
function sheet(context, files, ink) {
  if (!files.length) return;
  const columns = Math.min(3, Math.ceil(Math.sqrt(files.length)));
  const cell = SIDE / columns;
  files.slice(0, columns * columns).forEach(({ bitmap, name }, i) => {
    const left = (i % columns) * cell;
    const top = Math.floor(i / columns) * cell;
    if (!bitmap) {
      context.fillStyle = ink;
      context.font = "6px system-ui, sans-serif";
      context.fillText(name, left + 3, top + cell / 2, cell - 6);
      return;
    }
    const scale = (cell - 4) / Math.max(bitmap.width, bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    context.drawImage(bitmap, left + (cell - width) / 2, top + (cell - height) / 2, width, height);
  });
}
