"""A made CLINC150 in its own layout, with fewer questions."""

import json
from pathlib import Path
from typing import Any

import pytest

from quickstudy.data import clinc150

DOMAINS = {"home": ["light", "door"], "bank": ["pay", "balance"]}


def content() -> tuple[dict[str, Any], dict[str, Any]]:
    """What the two files hold: three, one and two questions of each intent, and two out of scope in each part."""
    questions: dict[str, Any] = {}
    intents = [intent for names in DOMAINS.values() for intent in names]
    for name, each in (("val", 1), ("train", 3), ("test", 2)):
        questions[name] = [[f"{name} {i} about the {intent}", intent] for i in range(each) for intent in intents]
        questions[f"oos_{name}"] = [[f"{name} {i} about nothing", "oos"] for i in range(2)]
    return questions, {domain: list(names) for domain, names in DOMAINS.items()}


def write(root: Path, questions: Any, domains: Any) -> Path:
    """The two files in ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data_full.json").write_text(json.dumps(questions), encoding="utf-8")
    (root / "domains.json").write_text(json.dumps(domains), encoding="utf-8")
    return root


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell the reader how small it is."""
    monkeypatch.setattr(clinc150, "DOMAINS", 2)
    monkeypatch.setattr(clinc150, "INTENTS", 2)
    parts = {"train": ("train", 3), "validation": ("val", 1), "test": ("test", 2)}
    monkeypatch.setattr(clinc150, "PARTS", parts)
    monkeypatch.setattr(clinc150, "OUT_OF_SCOPE", {part: (f"oos_{name}", 2) for part, (name, _) in parts.items()})
