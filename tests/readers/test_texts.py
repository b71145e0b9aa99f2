"""TextReader: hashed n-grams and sentence encoders; what is no text is named."""

import numpy as np
import pytest
import torch

from quickstudy.readers import TextReader, reader_from_dict, texts


def test_hashing_is_the_same_vector_for_the_same_text():
    x = ["book a flight to Oslo", "Book a flight to Oslo", "what is my balance"]
    found = TextReader().fit(x).read(x)
    assert found.shape == (3, 4096)
    assert found.dtype == torch.float32
    assert torch.equal(found[0], found[1])  # capitals count for nothing
    torch.testing.assert_close(found.square().sum(1), torch.full((3,), 2.0))  # two halves of unit length
    near = TextReader().read(["book the flights to oslo"])[0] @ found[0]
    assert float(near) > 0.5 > float(found[2] @ found[0])
    assert torch.equal(TextReader().read(x[1:]), found[1:])
    assert float(TextReader().read(["!?"]).abs().sum()) >= 0  # no word in it, and no error


def test_containers():
    pd = pytest.importorskip("pandas")
    expected = TextReader().read(["a word", "another"])
    for x in (
        ("a word", "another"),
        np.array(["a word", "another"]),
        np.array([["a word"], ["another"]], dtype=object),
        pd.Series(["a word", "another"]),
        pd.DataFrame({"text": ["a word", "another"]}, index=[5, 6]),
    ):
        assert torch.equal(TextReader().read(x), expected)


@pytest.mark.parametrize(("x", "words"), [
    ("one text", r"X is a single str; required is a list of texts"),
    ([], "there are 0 texts"),
    (["a", None], "text 1 is None of type NoneType; required are texts"),
    (["a", float("nan")], "text 1 is nan of type float"),
    ([b"a"], "text 0 is b'a' of type bytes.*decode bytes"),
    (["a", "  \n"], "text 1 is empty"),
    (["x" * 1_000_000], "text 0 has 1,000,000 characters; required are at most 20,000: shorten it, or split it up"),
    (np.array([["a", "b"]]), r"of type ndarray of shape \(1, 2\)"),
    ({"a": 1}, "X is of type dict"),
])  # fmt: skip
def test_what_is_no_text_is_named(x, words):
    with pytest.raises(ValueError, match=words):
        TextReader().read(x)


def test_the_longest_text_is_read():
    assert TextReader().read(["ab " * 6666 + "ab"]).shape == (1, 4096)


def test_encoders_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"encoder 'no/such' is no folder on this machine; required is 'hashing'"):
        TextReader("no/such").read(["a"])
    for encoder in ("", None, 3):
        with pytest.raises(ValueError, match=r"encoder=.*required is 'hashing', 'all-MiniLM-L6-v2' or the folder"):
            TextReader(encoder)
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r"needs sentence-transformers.*pip install 'quickstudy\[text\]'"):
        TextReader(str(tmp_path)).read(["a"])


def test_a_folder_that_is_no_encoder(tmp_path, monkeypatch):
    class Broken:
        def __init__(self, *_, **__):
            raise OSError("no file named model.safetensors\nin the folder")

    module = type(__import__("sys"))("sentence_transformers")
    module.SentenceTransformer = Broken  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", module)
    with pytest.raises(ValueError, match=r"cannot be loaded \(no file named model\.safetensors\); required is a whole"):
        TextReader(str(tmp_path)).read(["a"])


def test_an_encoder_is_loaded_once(tmp_path, monkeypatch):
    loaded = []

    class Encoder:
        def __init__(self, name, device):
            loaded.append((name, device))

        def eval(self):
            return self

        def encode(self, given, **options):
            assert options["show_progress_bar"] is False
            return np.array([[len(text), 1.0] for text in given])

    module = type(__import__("sys"))("sentence_transformers")
    module.SentenceTransformer = Encoder  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", module)
    texts._sentence_encoder.cache_clear()
    for _ in range(2):
        found = TextReader(str(tmp_path)).read(["ab", "abc"])
    assert found.tolist() == [[2, 1], [3, 1]]
    assert found.dtype == torch.float32
    assert loaded == [(str(tmp_path), "cpu")]
    texts._sentence_encoder.cache_clear()


def test_it_travels_as_json():
    reader = TextReader("all-MiniLM-L6-v2")
    assert reader.as_dict() == {"kind": "texts", "encoder": "all-MiniLM-L6-v2"}
    assert reader_from_dict(reader.as_dict()) == reader
