"""A made Omniglot of five characters with its lists."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

BACKGROUND = {"Greek": 2, "Hebrew": 1}
EVALUATION = {"Angelic": 2}
LISTS = {
    "train.txt": ("Greek/character01", "Greek/character02"),
    "val.txt": ("Hebrew/character01",),
    "trainval.txt": ("Greek/character01", "Greek/character02", "Hebrew/character01"),
    "test.txt": ("Angelic/character02", "Angelic/character01"),
}


def drawn(alphabet: str, character: int, drawer: int) -> np.ndarray:
    """105×105 paper with a bar whose place tells the character and whose length tells the drawer."""
    array = np.full((105, 105), 255, dtype=np.uint8)
    row = 10 + 10 * character + 3 * len(alphabet)
    array[row : row + 5, 8 : 20 + 3 * drawer] = 0
    return array


def files(alphabets: dict[str, int]) -> dict[str, bytes]:
    """Member names of one archive and their bytes."""
    found = {}
    for alphabet, count in alphabets.items():
        for character in range(1, count + 1):
            for drawer in range(1, 21):
                file = io.BytesIO()
                Image.fromarray(drawn(alphabet, character, drawer)).convert("1").save(file, "PNG")
                found[f"{alphabet}/character{character:02d}/0{character:03d}_{drawer:02d}.png"] = file.getvalue()
    return found


def zipped(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members, reverse=True):  # an archive keeps no useful order
            archive.writestr(f"{path.stem}/{name}", members[name])
        archive.writestr(f"__MACOSX/{path.stem}/._x.png", b"not an image")


def write(root: Path) -> None:
    """The two archives and the four lists; the reader must be told its ``BACKGROUND`` and ``EVALUATION`` as well."""
    (root / "vinyals").mkdir(parents=True)
    zipped(root / "images_background.zip", files(BACKGROUND))
    zipped(root / "images_evaluation.zip", files(EVALUATION))
    for name, characters in LISTS.items():
        lines = [f"{character}/rot{angle:03d}" for character in characters for angle in (0, 90, 180, 270)]
        (root / "vinyals" / name).write_text("\n".join(lines), encoding="utf-8")
