"""ArrayReader, and what every reader has in common."""

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.readers import READERS, ArrayReader, ImageReader, is_dataframe, reader_from_dict
from quickstudy.readers.arrays import refuse_pictures


def test_numbers_as_they_are(generator):
    x = torch.randn(3, 2, 5, generator=generator)
    for values in (x, x.numpy(), x.numpy().astype(np.float64), x.tolist(), x.double().requires_grad_()):
        found = ArrayReader().read(values)
        assert torch.equal(found, x)
        assert found.dtype == torch.float32
    kept = x.clone()
    ArrayReader().read(x).zero_()
    ArrayReader().read(x.numpy()).zero_()
    assert torch.equal(x, kept)
    assert ArrayReader().read(np.array([7, 200], dtype=np.uint8)).tolist() == [7, 200]
    assert ArrayReader().read(np.array([[1, True]], dtype=object)).tolist() == [[1, 1]]


def test_fit_keeps_the_shape_and_flat_examples_are_brought_into_it():
    reader = ArrayReader().fit(np.zeros((4, 2, 3)))
    assert reader.shape == (2, 3)
    assert reader.read(np.arange(6.0).reshape(1, 6)).tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert reader.fit(np.zeros((1, 9))) is reader
    assert ArrayReader().fit([1.0, 2.0]).shape == ()
    with pytest.raises(
        ValueError, match=r"examples of shape \(5,\) were given; required are examples of shape \(2, 3\)"
    ):
        reader.read(np.zeros((1, 5)))


def test_dataframes_of_numbers():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    assert ArrayReader().read(frame).tolist() == [[1, 0.5], [2, 1.5]]
    assert is_dataframe(frame)
    assert not is_dataframe(frame["a"])
    assert is_dataframe(type("Own", (pd.DataFrame,), {})({"a": [1]}))
    with pytest.raises(ValueError, match="forms no array of numbers"):
        ArrayReader().read(frame.assign(c=["x", "y"]))


def test_pictures_and_files_have_readers_of_their_own(tmp_path):
    picture = Image.new("L", (4, 4))
    for x in (["a.png"], [tmp_path / "a.png"], "a.png", (picture,), [b"PNG"], np.array(["a.png"])):
        with pytest.raises(
            ValueError, match=r"given to ArrayReader.*reader=ImageReader\(size=\.\.\., channels=\.\.\.\)"
        ):
            ArrayReader().read(x)
    refuse_pictures(np.zeros((2, 3)))
    refuse_pictures([])


@pytest.mark.parametrize(("x", "words"), [
    ([[1], [1, 2]], "X forms no array of numbers"),
    ([["a"]], r"shape \(1, 1\) and type <U1; required are numbers"),
    (3.0, r"shape \(\)"),
    ([], "there are 0 rows"),
    ([[1.0, float("nan")], [1, 2]], "1 of 2 examples hold NaN, infinity or a value too large"),
    ([1e39], r"too large for dtype\('float32'\)"),
    (np.array([1j]), "type complex128"),
    (object(), "forms no array"),
])  # fmt: skip
def test_what_is_no_array_of_numbers(x, words):
    with pytest.raises(ValueError, match=words):
        ArrayReader().read(x)


@pytest.mark.parametrize("shape", [3, ("a",), (0, 2), (-1,)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match=r"shape=.*required are"):
        ArrayReader(shape)


def test_readers_by_kind():
    for kind, cls in READERS.items():
        reader = cls()
        assert reader.kind == kind
        assert reader_from_dict(reader.as_dict()) == reader
        assert reader.as_dict()["kind"] == kind
    assert reader_from_dict({"kind": "arrays", "shape": [1, 2]}) == ArrayReader((1, 2))
    assert reader_from_dict({"kind": "images"}) == ImageReader()
    assert hash(ArrayReader((1, 2))) == hash(ArrayReader((1, 2)))


@pytest.mark.parametrize(("values", "words"), [
    ({}, "a reader of kind None is not known; required is one of images, tables, texts, sounds, arrays"),
    ({"kind": "videos"}, "kind 'videos'"),
    ({"kind": ["images"]}, "kind"),
    ({"kind": "images", "colour": True}, r"the values \['colour'\] are not those of a reader of images"),
    ({"kind": "images", "size": "big"}, "size='big'"),
])  # fmt: skip
def test_foreign_descriptions(values, words):
    with pytest.raises(ValueError, match=words):
        reader_from_dict(values)
