// What this tab keeps over a reload. A browser may forbid that, or have no room left: then it lasts until the reload.

const memory = new Map();

export function kept(key) {
  if (memory.has(key)) return memory.get(key);
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

export function keep(key, value) {
  memory.set(key, value);
  try {
    sessionStorage.setItem(key, value);
  } catch {
    // it stays in the memory
  }
}
