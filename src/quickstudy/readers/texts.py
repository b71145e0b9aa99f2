"""Texts as vectors: hashed n-grams, which need nothing, or a sentence encoder, which needs the extra ``text``."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quickstudy.readers.examples import as_items, require_examples, shown
from quickstudy.readers.reader import Reader

LONGEST = 20_000  # characters of a text
HASHING = "hashing"
ENCODERS = ("all-MiniLM-L6-v2",)  # sentence encoders that are known by name
_HALF = 2048  # numbers for the n-grams of words, and as many for those of characters


@dataclass(frozen=True)
class TextReader(Reader):
    """Each text as one vector.

    Args:
        encoder: "hashing": one and two words in a row and three to five characters within a word, counted by the hash
            of their letters, 4,096 numbers without any training. "all-MiniLM-L6-v2": 384 numbers of a frozen sentence
            encoder. Or the folder of any model of sentence-transformers. It is loaded once for all readers.
    """

    kind: ClassVar[str] = "texts"
    encoder: str = HASHING

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, str) or not self.encoder:
            raise ValueError(
                f"encoder={self.encoder!r}; required is {HASHING!r}, {ENCODERS[0]!r} or the folder of a model of "
                "sentence-transformers, as a text"
            )

    def fit(self, X: Any) -> "TextReader":
        """The same: no reader of texts is trained."""
        return self

    def read(self, X: Any) -> Tensor:
        texts = as_items(X, "texts")
        require_examples(len(texts), "texts")
        for i, text in enumerate(texts):
            _check(i, text)
        if self.encoder == HASHING:
            return _hashed(texts)
        vectors = _sentence_encoder(self.encoder).encode(texts, convert_to_numpy=True, show_progress_bar=False)
        return torch.from_numpy(np.array(vectors, dtype=np.float32))


def _check(i: int, text: Any) -> None:
    if not isinstance(text, str):
        raise ValueError(
            f"text {i} is {shown(text)} of type {type(text).__name__}; required are texts (str): fill in what is "
            "missing, and decode bytes"
        )
    if len(text) > LONGEST:
        raise ValueError(
            f"text {i} has {len(text):,} characters; required are at most {LONGEST:,}: shorten it, or split it up"
        )
    if not text.strip():
        raise ValueError(f"text {i} is empty; required is at least one word: fill it in, or leave it out")


def _hashed(texts: list[str]) -> Tensor:
    parts = [vectorizer.transform(texts).toarray() for vectorizer in _vectorizers()]
    return torch.from_numpy(np.concatenate(parts, axis=1, dtype=np.float32))  # (n, 4096), each half of unit length


@functools.cache
def _vectorizers() -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import HashingVectorizer  # here, because it takes long to import

    words = HashingVectorizer(n_features=_HALF, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    letters = HashingVectorizer(n_features=_HALF, analyzer="char_wb", ngram_range=(3, 5))
    return words, letters


@functools.lru_cache(maxsize=4)
def _sentence_encoder(name: str) -> Any:
    """The encoder, on the CPU and in evaluation mode."""
    if name not in ENCODERS and not Path(name).is_dir():
        raise ValueError(
            f"encoder {name!r} is no folder on this machine; required is {HASHING!r}, {ENCODERS[0]!r} or the folder "
            "of a model of sentence-transformers: check the path"
        )
    try:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"the encoder {name!r} needs sentence-transformers, which is not installed: pip install "
            f"'quickstudy[text]', or take the encoder {HASHING!r}"
        ) from error
    try:
        return SentenceTransformer(name, device="cpu").eval()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the encoder {name!r} cannot be loaded ({reason}); required is a whole model of sentence-transformers: "
            f"give the folder of one, or take the encoder {HASHING!r}"
        ) from error
