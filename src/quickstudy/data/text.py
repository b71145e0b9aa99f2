"""From text to numbers: a vocabulary of word pieces, in which every word can be written.

Rico Sennrich, Barry Haddow, Alexandra Birch. Neural Machine Translation of Rare Words with Subword Units. ACL 2016,
arXiv:1508.07909: start from single characters, and join the most frequent pair of neighbours, again and again.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

EDGE, UNKNOWN = 0, 1  # the begin and the end of a sentence (and what fills rows up); a character never met
START = "▁"  # stands before the first character of a word
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_SPECIAL = ("<s>", "<unk>")


def words(text: str) -> list[str]:
    """The words of a text in small letters; each mark of punctuation is a word, an apostrophe within one belongs to it.

    >>> words("What's the weather, please?")
    ["what's", 'the', 'weather', ',', 'please', '?']
    """
    return _WORD.findall(text.lower())


class Vocabulary:
    """Word pieces and their numbers.

    A word that was never met is written in smaller pieces, down to single characters, so that a model of pieces gives a
    probability to any word. Only a character that was never met is unknown.

    Args:
        alphabet: the single characters, as they are and, for the first one of a word, with ``START`` before them.
        merges: pairs of pieces that are joined, the most frequent first.

    Attributes:
        pieces: by number; 0 is the edge of a sentence, 1 an unknown character.

    Raises:
        ValueError: a piece that is there twice, or a pair.
    """

    def __init__(self, alphabet: Sequence[str], merges: Sequence[tuple[str, str]]):
        self.alphabet, self.merges = tuple(alphabet), tuple((a, b) for a, b in merges)
        self.pieces = (*_SPECIAL, *dict.fromkeys((*self.alphabet, *(a + b for a, b in self.merges))))
        self._number = {piece: i for i, piece in enumerate(self.pieces)}
        self._rank = {pair: i for i, pair in enumerate(self.merges)}
        if len(self._number) != len(self.pieces) or len(self._rank) != len(self.merges):
            raise ValueError("a piece is there twice; required are different ones: take Vocabulary.of(texts)")
        self._known: dict[str, tuple[int, ...]] = {}

    @classmethod
    def of(cls, texts: Iterable[str], *, size: int = 1000) -> "Vocabulary":
        """The vocabulary of these texts: give it those of meta-training alone.

        Args:
            texts: sentences.
            size: pieces, the two special ones among them; fewer where the texts have no further pair or where two
                joins spell the same piece, and more where they have more characters.

        Raises:
            ValueError: texts without a word.
        """
        counts = Counter(word for text in texts for word in words(text))
        if not counts:
            raise ValueError("the texts hold no word; required is at least one: check what was read")
        characters = sorted({character for word in counts for character in word})
        alphabet = [*characters, *(START + character for character in characters)]
        return cls(alphabet, _merges(counts, size - len(_SPECIAL) - len(alphabet)))

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def begins(self) -> Tensor:
        """(pieces,) whether a piece begins a word, or ends a sentence: their sum over a text counts its words.

        A word whose first character was never met begins with an unknown piece and is not counted.
        """
        return torch.tensor([i == EDGE or piece.startswith(START) for i, piece in enumerate(self.pieces)])

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's pieces, without edges."""
        return [number for word in words(text) for number in self._word(word)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of these pieces, with a space between any two words; edges are left out."""
        return "".join(self.pieces[i] for i in numbers if i != EDGE).replace(START, " ").strip()

    def _word(self, word: str) -> tuple[int, ...]:
        if word not in self._known:
            parts = _letters(word)
            while len(parts) > 1:
                pair = min(pairwise(parts), key=lambda p: self._rank.get(p, len(self._rank)))
                if pair not in self._rank:
                    break
                parts = _joined(parts, pair)
            self._known[word] = tuple(self._number.get(part, UNKNOWN) for part in parts)
        return self._known[word]


def _letters(word: str) -> list[str]:
    return [START + word[0], *word[1:]]


def _joined(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Every neighbouring ``pair`` as one piece, from the left."""
    found: list[str] = []
    i = 0
    while i < len(parts):
        step = 2 if tuple(parts[i : i + 2]) == pair else 1
        found.append("".join(parts[i : i + step]))
        i += step
    return found


def _merges(counts: Counter[str], number: int) -> list[tuple[str, str]]:
    """Up to ``number`` joins; of equally frequent pairs the first in the alphabet."""
    parts = {word: _letters(word) for word in counts}
    frequency: Counter[tuple[str, str]] = Counter()
    holders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def count(word: str, sign: int) -> None:
        for pair in pairwise(parts[word]):
            frequency[pair] += sign * counts[word]
            holders[pair].add(word)

    for word in counts:
        count(word, 1)
    found: list[tuple[str, str]] = []
    while len(found) < number and frequency:
        pair = min(frequency, key=lambda p: (-frequency[p], p))
        if frequency[pair] < 2:
            break
        for word in holders.pop(pair):
            count(word, -1)
            parts[word] = _joined(parts[word], pair)
            count(word, 1)
        del frequency[pair]
        found.append(pair)
    return found
