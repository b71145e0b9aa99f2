"""CLINC150: 22,500 questions to an assistant, of 150 intents in 10 domains, and 1,200 questions that fit none of them.

Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction", EMNLP 2019,
arXiv:1909.02027.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.data.root import MissingData, data_root

SOURCE = "github.com/clinc/oos-eval, folder data"
DOMAINS, INTENTS = 10, 15  # domains, and intents of each
PARTS: Mapping[str, tuple[str, int]] = {"train": ("train", 100), "validation": ("val", 20), "test": ("test", 30)}
"""Part: its name in the file, and its questions for each intent."""
OUT_OF_SCOPE: Mapping[str, tuple[str, int]] = {
    "train": ("oos_train", 100),
    "validation": ("oos_val", 100),
    "test": ("oos_test", 1000),
}
"""Part: its name in the file, and its questions."""


@dataclass(frozen=True)
class Clinc150:
    """Questions with their intents.

    Args:
        texts: the questions, in the order of the file: train, validation, test.
        y: (n,) int64, the index of each question's intent in ``intents``.
        intents: their names, sorted.
        domains: the domain of each intent, as long as ``intents``.
        parts: "train", "validation" or "test" for each question.
        out_of_scope: questions of no intent.
        out_of_scope_parts: the part of each of these.
    """

    texts: tuple[str, ...]
    y: np.ndarray
    intents: tuple[str, ...]
    domains: tuple[str, ...]
    parts: tuple[str, ...]
    out_of_scope: tuple[str, ...]
    out_of_scope_parts: tuple[str, ...]

    def domain_of_each(self) -> tuple[str, ...]:
        """The domain of each question."""
        return tuple(self.domains[i] for i in self.y.tolist())

    def select(self, domains: Iterable[str]) -> "Clinc150":
        """Only the intents of these domains; the questions out of scope stay.

        Raises:
            ValueError: a domain that is not there.
        """
        chosen = tuple(domains)
        unknown = [name for name in chosen if name not in self.domains]
        if unknown:
            raise ValueError(
                f"domain {unknown[0]!r} is not in the data, which hold {', '.join(sorted(set(self.domains)))}: choose "
                "among these"
            )
        kept = [i for i, domain in enumerate(self.domains) if domain in chosen]
        number = {old: new for new, old in enumerate(kept)}
        rows = [row for row, i in enumerate(self.y.tolist()) if i in number]
        return Clinc150(
            texts=tuple(self.texts[row] for row in rows),
            y=np.array([number[i] for i in self.y[rows].tolist()], dtype=np.int64),
            intents=tuple(self.intents[i] for i in kept),
            domains=tuple(self.domains[i] for i in kept),
            parts=tuple(self.parts[row] for row in rows),
            out_of_scope=self.out_of_scope,
            out_of_scope_parts=self.out_of_scope_parts,
        )


def load(root: Path | None = None) -> Clinc150:
    """All questions, from ``data_full.json`` and ``domains.json``.

    Args:
        root: the folder with the two files; without it, ``clinc150`` in `data_root`.

    Raises:
        MissingData: a file is not there (a ValueError and a FileNotFoundError).
        ValueError: a damaged or incomplete file, or one of another format; the message names it.
    """
    folder = data_root() / "clinc150" if root is None else Path(root)
    questions_path, domains_path = folder / "data_full.json", folder / "domains.json"
    domain_of = _domains(domains_path)
    questions = _object(questions_path)
    intents = tuple(sorted(domain_of))
    found = {part: _pairs(questions_path, questions, name) for part, (name, _) in PARTS.items()}
    outside = {part: _pairs(questions_path, questions, name) for part, (name, _) in OUT_OF_SCOPE.items()}
    for part, (name, each) in PARTS.items():
        counts = Counter(intent for _, intent in found[part])
        _complete(questions_path, name, counts, dict.fromkeys(intents, each))
    for part, (name, count) in OUT_OF_SCOPE.items():
        _complete(questions_path, name, Counter(label for _, label in outside[part]), {"oos": count})
    index = {intent: i for i, intent in enumerate(intents)}
    return Clinc150(
        texts=tuple(text for pairs in found.values() for text, _ in pairs),
        y=np.array([index[intent] for pairs in found.values() for _, intent in pairs], dtype=np.int64),
        intents=intents,
        domains=tuple(domain_of[intent] for intent in intents),
        parts=tuple(part for part, pairs in found.items() for _ in pairs),
        out_of_scope=tuple(text for pairs in outside.values() for text, _ in pairs),
        out_of_scope_parts=tuple(part for part, pairs in outside.items() for _ in pairs),
    )


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingData(
            f"CLINC150's {path.name} was not found; looked for {path}: copy it from {SOURCE}, or set QUICKSTUDY_DATA "
            "to the folder that holds clinc150/"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): delete it and copy it from {SOURCE}") from error
    if not isinstance(content, dict):
        raise _foreign(path, f"it holds a {type(content).__name__}, and an object is required")
    return content


def _domains(path: Path) -> dict[str, str]:
    """The domain of each intent."""
    found: dict[str, str] = {}
    content = _object(path)
    for domain, intents in content.items():
        if not isinstance(intents, list) or not all(isinstance(intent, str) for intent in intents):
            raise _foreign(path, f"{domain!r} is not a list of intents")
        for intent in intents:
            if intent in found:
                raise _foreign(path, f"the intent {intent!r} is listed twice")
            found[intent] = domain
    wrong = [domain for domain, intents in content.items() if len(intents) != INTENTS]
    if len(content) != DOMAINS or wrong:
        more = f", and {wrong[0]!r} has {len(content[wrong[0]])} intents of {INTENTS}" if wrong else ""
        raise _foreign(path, f"it lists {len(content)} domains of {DOMAINS}{more}")
    return found


def _pairs(path: Path, content: dict[str, Any], name: str) -> list[tuple[str, str]]:
    """The questions and intents of one part."""
    if name not in content:
        raise _foreign(path, f"it has no part {name!r}")
    rows = content[name]
    if not isinstance(rows, list):
        raise _foreign(path, f"its part {name!r} is no list")
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 2 or not all(isinstance(cell, str) and cell for cell in row):
            raise _foreign(path, f"entry {i} of its part {name!r} is not [question, intent]")
    return [(text, intent) for text, intent in rows]


def _complete(path: Path, name: str, counts: Mapping[str, int], due: Mapping[str, int]) -> None:
    wrong = sorted(label for label in {*counts, *due} if counts.get(label, 0) != due.get(label, 0))
    if wrong:
        label = wrong[0]
        there, required = counts.get(label, 0), due.get(label, 0)
        raise _foreign(path, f"its part {name!r} has {there} questions of {label!r}, and {required} are required")


def _foreign(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path} is not the complete {path.name} of CLINC150: {what}: delete it and copy it from {SOURCE}"
    )
