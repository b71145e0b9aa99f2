"""Words and word pieces."""

import pytest
import torch

from quickstudy.data import text
from quickstudy.data.text import EDGE, START, UNKNOWN, Vocabulary, words


def test_words_are_small_and_punctuation_stands_alone():
    assert words("What's  the WEATHER, today?\n") == ["what's", "the", "weather", ",", "today", "?"]
    assert words(" \t") == []


def test_the_most_frequent_pair_is_joined_first():
    vocabulary = Vocabulary.of(["aab aab", "aab ab"], size=2 + 4 + 2)
    # aab ×3 is ▁a a b and ab ×1 is ▁a b: (▁a, a) and (a, b) are there three times, and "a" comes before "▁"
    assert vocabulary.alphabet == ("a", "b", START + "a", START + "b")
    assert vocabulary.merges == (("a", "b"), (START + "a", "ab"))
    assert [vocabulary.pieces[i] for i in vocabulary.encode("aab")] == [START + "aab"]


def test_any_word_can_be_written_and_read_back():
    vocabulary = Vocabulary.of(["the cat sat on the mat", "the hat"], size=30)
    for sentence in ("the cat", "tomato hen", "eee", "the"):
        assert vocabulary.decode([EDGE, *vocabulary.encode(sentence), EDGE]) == sentence
    assert len(vocabulary.encode("the")) == 1
    assert vocabulary.encode("q") == [UNKNOWN]
    assert vocabulary.encode("") == []


def test_begins_count_the_words_and_the_end():
    vocabulary = Vocabulary.of(["the cat sat on the mat"], size=24)
    numbers = torch.tensor([*vocabulary.encode("the oats mattes"), EDGE])
    assert int(vocabulary.begins[numbers].sum()) == 4
    assert vocabulary.begins.shape == (len(vocabulary),)


def test_encoding_applies_the_joins_in_their_order():
    vocabulary = Vocabulary.of(["low lower lowest newer newest wider"] * 3, size=40)
    for word in ("lowest", "newer", "wide", "slow", "ester"):
        parts = text._letters(word)
        for pair in vocabulary.merges:
            parts = text._joined(parts, pair)
        expected = [vocabulary.pieces.index(part) if part in vocabulary.pieces else UNKNOWN for part in parts]
        assert vocabulary.encode(word) == expected


def test_the_counts_of_pairs_are_kept_right():
    texts = ["low lower lowest newer newest wider banana bandana aaaa aaa"] * 2
    merges = Vocabulary.of(texts, size=60).merges
    counts = dict.fromkeys(words(texts[0]), 2)
    parts = {word: text._letters(word) for word in counts}
    for found in merges:
        frequency: dict[tuple[str, str], int] = {}
        for word, n in counts.items():
            for pair in zip(parts[word], parts[word][1:], strict=False):
                frequency[pair] = frequency.get(pair, 0) + n
        assert found == min(frequency, key=lambda p: (-frequency[p], p))
        parts = {word: text._joined(each, found) for word, each in parts.items()}


def test_texts_without_words_and_double_pieces_are_refused():
    with pytest.raises(ValueError, match="the texts hold no word; required is at least one"):
        Vocabulary.of(["", "  "])
    with pytest.raises(ValueError, match="a piece is there twice"):
        Vocabulary(("a", START + "a"), ((START + "a", "a"), (START + "a", "a")))
