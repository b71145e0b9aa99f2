// Image files as the server accepts them: a photo from a telephone is scaled down here, before it is sent.

const LARGEST = 1024; // pixels of the longer side after scaling
const BYTES = 1_000_000; // of a file that is sent as it is
const AROUND = 1500; // bytes that a request, and each file in it, has beside the content
const most = { files: 32, bytes: 4_000_000, pixels: 2_000_000 }; // of a request; of a request; of an image

// limits: those of the server, where it tells them.
export function obey({ files = most.files, body_bytes = most.bytes, pixels = most.pixels } = {}) {
  most.files = Math.min(most.files, files);
  most.bytes = Math.min(most.bytes, body_bytes);
  most.pixels = Math.min(most.pixels, pixels);
}

// {blob, name, bitmap}; bitmap is null for what the browser cannot read: the server then says what is wrong with it.
export async function prepare(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  const name = file.name || "pasted.png";
  const bytes = Math.min(BYTES, most.bytes - 2 * AROUND);
  const fits = bitmap && bitmap.width * bitmap.height <= most.pixels && file.size <= bytes;
  if (fits || !bitmap) return { blob: file, name, bitmap };
  let side = Math.min(LARGEST, Math.floor(Math.sqrt(most.pixels)));
  let blob = await scaled(bitmap, side);
  while (blob.size > bytes && side > 64) blob = await scaled(bitmap, (side = Math.round(side / 2)));
  return { blob, name, bitmap };
}

function scaled(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
}

// The first files, as many as one request may hold; one at least.
export function batch(files) {
  let bytes = AROUND;
  const fits = ({ blob }, i) => (bytes += blob.size + AROUND) <= most.bytes && i < most.files;
  const end = files.findIndex((file, i) => !fits(file, i));
  return files.slice(0, end < 0 ? files.length : Math.max(1, end));
}
