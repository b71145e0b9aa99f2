// What works anywhere on the page: undo by keyboard, and images that are dropped or pasted.

// teach, trial: the two pads; addTo(name, files): make examples of that class of image files.
export function listen(teach, trial, addTo) {
  let last = teach; // the pad that was used last
  for (const pad of [teach, trial]) {
    for (const kind of ["pen", "change"]) pad.addEventListener(kind, () => (last = pad));
  }

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog");
    if (typing || event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
    event.preventDefault();
    last.undo();
  });

  // Images may be dropped anywhere: on a class they become its examples, elsewhere they go to the nearer pad.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    for (const node of document.querySelectorAll(".over")) node.classList.remove("over");
    event.target.closest("[data-drop], .pad")?.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    event.target.closest?.("[data-drop], .pad")?.classList.remove("over");
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    const target = event.target;
    const files = [...event.dataTransfer.files];
    for (const node of document.querySelectorAll(".over")) node.classList.remove("over");
    const name = target.closest("[data-drop]")?.dataset.drop;
    if (!name) await (target.closest("#try") ? trial : teach).take(files);
    else if (files.length) await addTo(name, files);
  });
  document.addEventListener("paste", (event) => {
    if (event.target.closest("input")) return;
    last.take([...event.clipboardData.files]);
  });
}
