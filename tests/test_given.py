"""Own data in one line."""

import numpy as np
import pytest
from PIL import Image

from quickstudy import FewShotClassifier, labelled


def test_a_folder_of_images(tmp_path):
    for name, where in (("across", np.s_[12:15, 4:24]), ("down", np.s_[4:24, 12:15])):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            drawing = np.full((28, 28), 255, dtype=np.uint8)
            drawing[where] = 10 * i
            Image.fromarray(drawing).save(tmp_path / "photos" / name / f"{i}.png")
    x, y = labelled(tmp_path / "photos")
    assert y == ["across", "across", "down", "down"]
    assert FewShotClassifier("characters").fit(x, y).score(x, y) == 1


def test_a_table_and_texts(tmp_path):
    path = tmp_path / "loans.csv"
    path.write_text("age,job,risk\n31,clerk,low\n45,,high\n29,clerk,low\n52,nurse,high\n")
    x, y = labelled(path)
    assert y == ["low", "high", "low", "high"]
    assert FewShotClassifier().fit(x, y).predict(x).tolist() == y
    path.write_text(path.read_text().replace("45,,", "45,cook,"))
    assert labelled(path, label="job")[1] == ["clerk", "cook", "clerk", "nurse"]
    x, _ = labelled(path, label="risk", text="job")
    assert x == ["clerk", "cook", "clerk", "nurse"]


def test_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="nothing"):
        labelled(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        labelled(tmp_path / "empty")
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,b\n")
    with pytest.raises(ValueError, match="no column"):
        labelled(tmp_path / "a.csv", label="z")
