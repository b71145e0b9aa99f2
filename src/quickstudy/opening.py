"""A learner by whatever a person calls it: a run folder, a file, or the name of one that ships in the package."""

from pathlib import Path
from typing import Any

from quickstudy.learner import Learner
from quickstudy.learners import LEARNERS, NearestNeighbour
from quickstudy.runs import RunFolder
from quickstudy.saving import load_with_facts

_FOLDER = Path(__file__).parent / "shipped"


def shipped() -> dict[str, Path]:
    """The trained learners in the package: name → file. Beside each file lies its model card, NAME.md."""
    files = (path for path in sorted(_FOLDER.glob("*.safetensors")) if not path.stem.startswith("optimizer_"))
    return {path.stem: path for path in files}


def open_learner(name: str | Path) -> Learner:
    """A trained learner in evaluation mode; one that ships, whose file holds half precision, in single precision.

    Args:
        name: a run folder, a learner file, the name of a learner that ships (``shipped()``), or "nearest_neighbour",
            which needs no training. A text that is one of these names always means it: write "./characters" for a path.

    Raises:
        ValueError: nothing of that name, or a file that ``load`` refuses.
    """
    if name == "nearest_neighbour":
        return NearestNeighbour()
    if isinstance(name, str) and name in shipped():
        path = shipped()[name]
    else:
        path = RunFolder(name).learner if Path(name).is_dir() else Path(name)
    if path.exists():
        return open_file(path)[0]
    hint = f"; train one first: quickstudy train --learner {name} --out runs/{name}" if name in LEARNERS else ""
    names = ", ".join([*shipped(), "nearest_neighbour"])
    raise ValueError(
        f"{path} does not exist; required is a run folder with a learner in it, a learner file, or a name among "
        f"{names}{hint}"
    )


def open_file(path: Path) -> tuple[Learner, dict[str, Any]]:
    """The learner of a file as ``open_learner`` gives it, and what the file says of it beside."""
    learner, facts = load_with_facts(path)
    return (learner.float() if path in shipped().values() else learner), facts
