"""Reading CLINC150: a made one, every way it can be wrong, and the real one where it is on this machine."""

from collections import Counter

import numpy as np
import pytest

from quickstudy.data import clinc150
from quickstudy.data.root import MissingData, data_root
from tests.data.small_clinc150 import content, shrink, write


@pytest.fixture(autouse=True)
def _small(request, monkeypatch):
    if "real" not in request.fixturenames:
        shrink(monkeypatch)


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "clinc150", *content())


def test_load(root, monkeypatch):
    data = clinc150.load(root)
    assert data.intents == ("balance", "door", "light", "pay")
    assert data.domains == ("bank", "home", "home", "bank")
    assert data.parts == ("train",) * 12 + ("validation",) * 4 + ("test",) * 8
    assert data.y.dtype == np.int64
    assert data.texts[0] == "train 0 about the light"
    assert [data.intents[i] for i in data.y[:4]] == ["light", "door", "pay", "balance"]
    assert data.domain_of_each()[:4] == ("home", "home", "bank", "bank")
    assert data.out_of_scope[0] == "train 0 about nothing"
    assert data.out_of_scope_parts == ("train",) * 2 + ("validation",) * 2 + ("test",) * 2
    monkeypatch.setenv("QUICKSTUDY_DATA", str(root.parent))
    assert clinc150.load().texts == data.texts


def test_select_keeps_the_questions_with_their_intents(root):
    data = clinc150.load(root)
    home = data.select(["home"])
    assert home.intents == ("door", "light")
    assert set(home.domains) == {"home"}
    assert len(home.texts) == len(home.y) == len(home.parts) == 12
    assert all(text.endswith(home.intents[i]) for text, i in zip(home.texts, home.y, strict=True))
    assert home.out_of_scope == data.out_of_scope
    with pytest.raises(ValueError, match=r"domain 'work' is not in the data, which hold bank, home"):
        data.select(["home", "work"])


@pytest.mark.parametrize("name", ["data_full.json", "domains.json"])
def test_a_missing_file(root, name):
    (root / name).unlink()
    with pytest.raises(MissingData, match=rf"CLINC150's {name} was not found; looked for .*{name}: copy it from"):
        clinc150.load(root)


@pytest.mark.parametrize("name", ["data_full.json", "domains.json"])
@pytest.mark.parametrize("damage", [b"", b'{"train": [["cut', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file(root, name, damage):
    (root / name).write_bytes(damage)
    with pytest.raises(ValueError, match=rf"{name} cannot be read as JSON .*: delete it and copy it from"):
        clinc150.load(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, d: (list(q), d), r"data_full.json of CLINC150: it holds a list, and an object is required"),
        (lambda q, d: (q, [d]), r"domains.json of CLINC150: it holds a list"),
        (lambda q, d: ({k: v for k, v in q.items() if k != "oos_val"}, d), r"it has no part 'oos_val'"),
        (lambda q, d: ({**q, "val": "none"}, d), r"its part 'val' is no list"),
        (lambda q, d: ({**q, "train": [["one"], *q["train"]]}, d), r"entry 0 of its part 'train' is not \[question"),
        (lambda q, d: ({**q, "train": [["", "pay"]]}, d), r"entry 0 of its part 'train' is not \[question"),
        (lambda q, d: ({**q, "test": [[1, "pay"]]}, d), r"entry 0 of its part 'test' is not \[question, intent\]"),
        (lambda q, d: ({**q, "train": q["train"][1:]}, d), r"'train' has 2 questions of 'light', and 3 are required"),
        (
            lambda q, d: ({**q, "train": [*q["train"], ["a", "new"]]}, d),
            r"has 1 questions of 'new', and 0 are required",
        ),
        (lambda q, d: ({**q, "oos_test": []}, d), r"'oos_test' has 0 questions of 'oos', and 2 are required"),
        (lambda q, d: (q, {**d, "home": "light"}), r"'home' is not a list of intents"),
        (lambda q, d: (q, {**d, "home": ["light", "pay"]}), r"the intent 'pay' is listed twice"),
        (lambda q, d: (q, {**d, "home": ["light"]}), r"2 domains of 2, and 'home' has 1 intents of 2"),
        (lambda q, d: (q, {"home": d["home"]}), r"it lists 1 domains of 2"),
    ],
)
def test_a_file_of_another_format(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"is not the complete .*{message}.*: delete it and copy it from"):
        clinc150.load(write(tmp_path, *change(*content())))


@pytest.fixture(scope="module")
def real():
    if not (data_root() / "clinc150" / "data_full.json").is_file():
        pytest.skip(f"CLINC150 is not in {data_root()}")
    return clinc150.load()


def test_all_of_the_real_data(real):
    assert len(real.texts) == 22_500
    assert len(real.intents) == 150
    assert set(Counter(real.domains).values()) == {15}
    assert len(set(real.domains)) == 10
    assert Counter(real.parts) == {"train": 15_000, "validation": 3_000, "test": 4_500}
    assert Counter(real.out_of_scope_parts) == {"train": 100, "validation": 100, "test": 1_000}
    assert (np.bincount(real.y) == 150).all()
