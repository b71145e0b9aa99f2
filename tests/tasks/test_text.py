"""Sentences of a domain as episodes."""

import pytest
import torch

from quickstudy.data.text import EDGE, UNKNOWN, Vocabulary
from quickstudy.episode import check_episode, task
from quickstudy.tasks.text import TextTasks

HOME = [f"turn {what} the {where} light" for what in ("on", "off") for where in ("red", "blue", "small", "old")]
BANK = [f"pay {n} to my {who} now please" for n in ("one", "two", "ten") for who in ("bank", "friend", "boss")]
TEXTS, GROUPS = [*HOME, *BANK], ["home"] * len(HOME) + ["bank"] * len(BANK)


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.of(TEXTS, size=60)


def read(vocabulary: Vocabulary, x: torch.Tensor) -> str:
    return vocabulary.decode(x.tolist())


def test_a_task_is_sentences_of_one_domain(vocabulary, generator):
    tasks = TextTasks(TEXTS, GROUPS, vocabulary, shot=3, queries=2)
    assert tasks.domains == ["bank", "home"]
    episodes = tasks.sample(20, generator=generator)
    check_episode(episodes)
    (sx, _), (_, qy) = episodes
    assert sx.shape == (20, 3, tasks.length)
    assert sx.dtype == torch.int64
    assert qy.shape == (20, 2, tasks.length, len(vocabulary))
    seen = set()
    for i in range(20):
        (sx, _), (qx, _) = task(episodes, i)
        sentences = [read(vocabulary, x) for x in (*sx, *qx)]
        assert len(set(sentences)) == 5
        assert set(sentences) <= set(HOME) or set(sentences) <= set(BANK)
        seen.add(sentences[0] in HOME)
    assert seen == {True, False}


def test_y_is_the_next_token_and_zero_behind_the_end(vocabulary, generator):
    (_, _), (x, y) = TextTasks(TEXTS, GROUPS, vocabulary, shot=1, queries=4).sample(2, generator=generator)
    for tokens, rows in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True):
        n = int(rows.sum())
        assert tokens[0] == EDGE
        assert (rows.sum(-1)[:n] == 1).all()
        assert rows[n:].sum() == 0
        following = rows[:n].argmax(-1)
        assert torch.equal(following[:-1], tokens[1:n])
        assert following[-1] == EDGE
        assert (tokens[n:] == EDGE).all()


def test_long_sentences_are_cut_and_their_end_is_not_asked_for(vocabulary, generator):
    tasks = TextTasks(TEXTS, GROUPS, vocabulary, shot=1, queries=1, length=4)
    _, (x, y) = tasks.sample(4, generator=generator)
    assert x.shape == (4, 1, 4)
    assert (y.sum(-1) == 1).all()
    assert (y.argmax(-1) != EDGE).all()


def test_an_unknown_character_is_read_and_not_asked_for(generator):
    vocabulary = Vocabulary.of(["a b", "b a"], size=10)
    _, (x, y) = TextTasks(["a q b"], ["d"], vocabulary, shot=0, queries=1).sample(1, generator=generator)
    (place,) = (x[0, 0] == UNKNOWN).nonzero().flatten().tolist()
    assert y[0, 0, place - 1].sum() == 0
    assert y[0, 0].sum() == 3  # a, b and the end


def test_sentences_that_read_the_same_count_once(vocabulary):
    tasks = TextTasks([*TEXTS, HOME[0].upper(), "  "], [*GROUPS, "home", "bank"], vocabulary, shot=1, queries=1)
    assert tasks.counts.tolist() == [len(BANK), len(HOME)]


def test_sentences_that_read_the_same_up_to_the_cut_count_once(generator):
    texts = ["pay the bill one", "pay the bill two", "pay the bill six", "ask a friend", "go to my bank", "see it"]
    tasks = TextTasks(texts, ["d"] * 6, Vocabulary.of(texts, size=200), shot=2, queries=1, length=3)
    assert tasks.counts.tolist() == [4]
    for _ in range(20):
        (sx, sy), (qx, qy) = task(tasks.sample(1, generator=generator), 0)
        assert not any(torch.equal(x, qx[0]) and torch.equal(y, qy[0]) for x, y in zip(sx, sy, strict=True))


def test_no_support_and_a_range_of_shots(vocabulary, generator):
    tasks = TextTasks(TEXTS, GROUPS, vocabulary, shot=(0, 2), queries=2)
    shots = {tasks.sample(1, generator=generator).support.x.shape[1] for _ in range(30)}
    assert shots == {0, 1, 2}
    assert "17 sentences of 2 domains" in repr(tasks)


def test_the_same_seed_gives_the_same_tasks(vocabulary):
    tasks = TextTasks(TEXTS, GROUPS, vocabulary, shot=2, queries=2)
    first, second = (tasks.sample(3, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.query.x, second.query.x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shot": -1}, "shot=-1, queries=20, length=0; required are at least 0"),
        ({"queries": 0}, "queries=0"),
        ({"length": -1}, "length=-1"),
        ({"shot": 7, "queries": 2}, r"domain 'home' has 8 different sentences; required are shot \+ queries = 7 \+ 2"),
    ],
)
def test_numbers_out_of_range(vocabulary, arguments, message):
    with pytest.raises(ValueError, match=message):
        TextTasks(TEXTS, GROUPS, vocabulary, **arguments)


def test_a_group_for_each_text(vocabulary):
    with pytest.raises(ValueError, match="17 texts and 16 groups were given"):
        TextTasks(TEXTS, GROUPS[1:], vocabulary)
    with pytest.raises(ValueError, match="0 texts and 0 groups were given; required is a text or more"):
        TextTasks([], [], vocabulary)
