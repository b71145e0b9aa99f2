"""What is in a folder, in the order in which a person counts: run2 before run10."""

import re
from collections import Counter
from collections.abc import Iterable, Set
from pathlib import Path

CLUTTER = frozenset({".txt", ".json", ".csv", ".md", ".db", ".ini"})
"""Endings of what lies beside examples without being one, in small letters."""


def subfolders(folder: Path) -> list[Path]:
    """The folders in it, without hidden ones."""
    return in_order(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def files_of(folder: Path, endings: Set[str]) -> list[Path]:
    """The files in it with one of these endings, in capitals or not, without hidden ones."""
    return in_order(p for p in folder.iterdir() if _is_one(p, endings))


def passed_over(folder: Path, endings: Set[str]) -> Counter[str]:
    """How many files of each other ending are in it, in small letters and without hidden files and clutter."""
    others = (p.suffix.lower() for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    return Counter(ending for ending in others if ending not in endings and ending not in CLUTTER)


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted by name, with numbers in names by value."""
    return sorted(paths, key=_natural)


def _is_one(path: Path, endings: Set[str]) -> bool:
    return path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file()


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Text and numbers in turn, so b2 before b10; names that differ only in case or zeros by their characters."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], path.name
