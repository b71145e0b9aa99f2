"""What all tests share."""

import pytest
import torch

from quickstudy.data import glyphs
from tests.small_glyphs import small_glyphs


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side, one process per core."""
    torch.set_num_threads(1)


@pytest.fixture
def made_glyphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made characters in place of the built-in ones, which take seconds to draw."""
    monkeypatch.setattr(glyphs, "load", small_glyphs)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
