// Image files as the server accepts them: a photo from a telephone is scaled down here, before it is sent.

const LARGEST = 1024; // pixels of the longer side after scaling
const PIXELS = 2_000_000; // what is sent as it is
const BYTES = 1_000_000;
const BATCH = { files: 32, bytes: 4_000_000 };

// {blob, name, bitmap}; bitmap is null for what the browser cannot read: the server then says what is wrong with it.
export async function prepare(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  const name = file.name || "pasted.png";
  if (!bitmap || (bitmap.width * bitmap.height <= PIXELS && file.size <= BYTES)) return { blob: file, name, bitmap };
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return { blob, name, bitmap };
}

// As many requests as the server's limits on files and bytes ask for.
export function batches(files) {
  const all = [[]];
  let bytes = 0;
  for (const file of files) {
    const last = all.at(-1);
    if (last.length && (last.length === BATCH.files || bytes + file.blob.size > BATCH.bytes)) {
      all.push([file]);
      bytes = file.blob.size;
    } else {
      last.push(file);
      bytes += file.blob.size;
    }
  }
  return all;
}
