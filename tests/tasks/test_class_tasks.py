"""Episodes over classes. Every example carries its own address: (class, number within the class)."""

import itertools
import time

import numpy as np
import pytest
import torch

import quickstudy as q
from quickstudy.tasks.inputs import encode

NAMES = [f"{group}{i}" for group in ("greek", "latin", "runic") for i in range(4)]
PER_CLASS = 9


def addressed(per_class: int = PER_CLASS, *, queries: int = 2, **settings) -> q.ClassTasks:
    """12 classes in 3 groups, in shuffled order; an example is (index of its class, its number, 1)."""
    rows = [(k, i) for k in range(len(NAMES)) for i in range(per_class)]
    order = np.random.default_rng(0).permutation(len(rows))
    rows = [rows[i] for i in order]
    x = np.array([(k, i, 1) for k, i in rows], dtype=np.float32)
    names = [NAMES[k] for k, _ in rows]
    return q.ClassTasks(x, names, groups=[name[:5] for name in names], queries=queries, **settings)


def test_shapes_one_hot_rows_and_their_order(generator):
    episodes = addressed(way=4, shot=2, queries=3).sample(5, generator=generator)
    assert episodes.support.x.shape == (5, 8, 3)
    assert episodes.support.y.shape == (5, 8, 4)
    assert episodes.query.x.shape == (5, 12, 3)
    assert episodes.query.y.shape == (5, 12, 4)
    assert episodes.support.y.argmax(-1).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 5
    assert episodes.query.y.argmax(-1).tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]] * 5
    for part in episodes:
        assert part.y.dtype == part.x.dtype == torch.float32
        assert torch.equal(part.y.sum(-1), torch.ones(part.y.shape[:2]))


def test_examples_are_of_their_class_and_never_shared_between_support_and_query(generator):
    episodes = addressed(way=4, shot=3, queries=PER_CLASS - 3).sample(50, generator=generator)
    for (sx, sy), (qx, qy) in zip(zip(*episodes.support, strict=True), zip(*episodes.query, strict=True), strict=True):
        of_label: dict[int, set[int]] = {}
        for x, y in zip(torch.cat([sx, qx]), torch.cat([sy, qy]), strict=True):
            of_label.setdefault(int(y.argmax()), set()).add(int(x[0]))
        assert all(len(classes) == 1 for classes in of_label.values())  # a label means one class
        assert len(set.union(*of_label.values())) == 4  # and different labels different classes
        support, query = ({tuple(x) for x in part[:, :2].int().tolist()} for part in (sx, qx))
        assert len(support) == 12
        assert len(query) == 24
        assert not support & query


def test_the_true_class_names_are_those_of_the_data(generator):
    tasks = addressed()
    assert tasks.classes == sorted(NAMES)
    assert tasks.class_groups == [name[:5] for name in sorted(NAMES)]
    for i, name in enumerate(tasks.classes):
        assert {NAMES[int(k)] for k in tasks.examples(tasks.rows_of(i))[:, 0]} == {name}


def test_classes_examples_and_labels_are_drawn_uniformly(generator):
    n, way = 3000, 3
    support, query = addressed(way=way, shot=1, queries=1).sample(n, generator=generator)
    x = support.x  # (n, way, 3)

    def chi_square(values: torch.Tensor, kinds: int) -> float:
        counts = torch.bincount(values.flatten().long(), minlength=kinds).double()
        expected = counts.sum() / kinds
        return float(((counts - expected) ** 2 / expected).sum())

    # the 99.9 % points of chi-square with 11 and 8 degrees of freedom
    assert chi_square(x[..., 0], 12) < 31.3
    assert chi_square(x[..., 1], PER_CLASS) < 26.1
    for label in range(way):  # no class prefers a label
        assert chi_square(x[:, label, 0], 12) < 31.3
    assert chi_square(query.x[..., 1], PER_CLASS) < 26.1


def test_classes_of_unequal_size_give_all_their_examples_alike(generator):
    sizes = [3, 5, 8]
    x = torch.tensor([(k, i) for k, size in enumerate(sizes) for i in range(size)])
    tasks = q.ClassTasks(x, x[:, 0], way=3, shot=1, queries=2)
    drawn = tasks.sample(2000, generator=generator)
    both = torch.cat([drawn.support.x, drawn.query.x], 1).flatten(0, 1)
    for k, size in enumerate(sizes):
        counts = torch.bincount(both[both[:, 0] == k][:, 1], minlength=size).double()
        assert len(counts) == size
        assert float((counts / counts.sum() * size - 1).abs().max()) < 0.1


def test_the_same_seed_gives_the_same_episodes():
    tasks = addressed(way=(2, 5), shot=(1, 3), queries=2)
    first, second = (tasks.sample(3, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.support.x, second.support.x)
    assert torch.equal(first.query.x, second.query.x)
    other = tasks.sample(3, generator=torch.Generator().manual_seed(8))
    assert not torch.equal(first.query.x[..., :1, :], other.query.x[..., :1, :])


def test_ranged_way_and_shot_are_drawn_once_per_call_and_reach_both_ends(generator):
    tasks = addressed(way=(2, 4), shot=(1, 2), queries=1)
    seen = set()
    for _ in range(60):
        episodes = tasks.sample(2, generator=generator)
        way = episodes.support.y.shape[-1]
        seen.add((way, episodes.support.x.shape[1] // way))
    assert seen == set(itertools.product((2, 3, 4), (1, 2)))


def first_of_class(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """For each row of x (n, way·shot, *input) the first row of its class."""
    shot = x.shape[1] // y.shape[-1]
    return x[:, ::shot].repeat_interleave(shot, 1)


def test_an_imbalanced_support_set_is_padded_with_the_first_example_of_the_class_and_no_label(generator):
    tasks = addressed(way=5, shot=(1, 4), queries=2, balanced=False)
    (sx, sy), (_, qy) = tasks.sample(100, generator=generator)
    assert sx.shape == (100, 20, 3)
    shots = sy.sum(1)  # (100, way)
    assert set(shots.unique().tolist()) == {1.0, 2.0, 3.0, 4.0}
    padding = sy.sum(-1) == 0
    assert torch.equal(sx[padding], first_of_class(sx, sy)[padding])
    for x, real in zip(sx, ~padding, strict=True):  # the real examples are there, each once
        assert len({tuple(row) for row in x[real].tolist()}) == int(real.sum())
    means = torch.einsum("nkw,nkd->nwd", sy, sx) / shots.unsqueeze(-1)
    assert torch.equal(means[..., 0], sx[:, ::4, 0])  # all rows of a class are of that class
    assert torch.equal(qy.sum(1), torch.full((100, 5), 2.0))


def test_within_group_keeps_the_classes_of_a_task_in_one_group_and_uses_every_group(generator):
    x = addressed(way=4, shot=1, queries=1, within_group=True).sample(60, generator=generator).support.x
    groups = x[..., 0].div(4, rounding_mode="floor")
    assert bool((groups == groups[:, :1]).all())
    assert set(groups[:, 0].tolist()) == {0.0, 1.0, 2.0}


def test_within_group_passes_over_groups_that_are_too_small(generator):
    x = torch.arange(7).repeat_interleave(3)
    tasks = q.ClassTasks(x, x, groups=[int(k >= 2) for k in x], way=3, shot=1, queries=1, within_group=True)
    assert int(tasks.sample(50, generator=generator).support.x.min()) >= 2


def test_bytes_become_fractions_and_integers_stay(generator):
    data = torch.arange(0, 250, 5, dtype=torch.uint8).view(10, 5)
    tasks = q.ClassTasks(data, [0] * 5 + [1] * 5, way=2, shot=1, queries=1)
    x = tasks.sample(4, generator=generator).support.x
    assert x.dtype == torch.float32
    assert bool(((x * 255).round() % 5 == 0).all())
    assert float(x.max()) <= 1
    assert tasks.x.dtype == torch.uint8
    whole = q.ClassTasks(data.long(), [0] * 5 + [1] * 5, way=2, shot=1, queries=1)
    assert whole.sample(1, generator=generator).support.x.dtype == torch.int64
    double = q.ClassTasks(data.double(), [0] * 5 + [1] * 5, way=2, shot=1, queries=1)
    assert double.sample(1, generator=generator).support.x.dtype == torch.float32


@pytest.mark.parametrize(
    "labels",
    [
        [3, 3, 3, -1, -1, -1],
        ["b", "b", "b", "a", "a", "a"],
        np.array([2, 2, 2, 1, 1, 1]),
        torch.tensor([5] * 3 + [4] * 3),
    ],
)
def test_labels_of_any_kind(labels, generator):
    tasks = q.ClassTasks(np.arange(6.0), labels, way=2, shot=1, queries=2)
    assert tasks.classes == sorted(set(labels.tolist() if hasattr(labels, "tolist") else labels))
    assert set(tasks.examples(tasks.rows_of(0)).tolist()) == {3.0, 4.0, 5.0}
    assert tasks.sample(2, generator=generator).support.x.shape == (2, 2)


def test_the_data_that_were_handed_in_are_not_changed(generator):
    x = torch.arange(12, dtype=torch.uint8)
    q.ClassTasks(x, [1, 0] * 6, way=2, shot=1, queries=1).sample(3, generator=generator)
    assert x.tolist() == list(range(12))


def test_augment_is_called_with_all_handed_out_examples_and_the_generator(generator):
    calls = []

    def augment(x, g):
        calls.append((x.shape, g))
        return x + 100

    episodes = addressed(way=3, shot=2, queries=4, augment=augment).sample(5, generator=generator)
    assert calls == [(torch.Size([30, 3]), generator), (torch.Size([60, 3]), generator)]
    assert bool((episodes.support.x >= 100).all())


def test_padding_repeats_the_augmented_example(generator):
    tasks = addressed(
        way=3, shot=(1, 3), queries=1, balanced=False, augment=lambda x, g: x + torch.rand(x.shape, generator=g)
    )
    x, y = tasks.sample(20, generator=generator).support
    padding = y.sum(-1) == 0
    assert bool(padding.any())
    assert torch.equal(x[padding], first_of_class(x, y)[padding])


def test_batch_statistics_of_a_padded_support_set_are_those_of_real_examples(generator):
    tasks = addressed(way=2, shot=(1, 8), queries=1, balanced=False)
    assert bool((tasks.sample(50, generator=generator).support.x[..., 2] == 1).all())


class Column:
    """A column of a table: numpy takes it, and it is no list."""

    def __init__(self, values):
        self.values = np.array(values, dtype=object)

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __len__(self):
        return len(self.values)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([[1]] * 3 + [[0]] * 3), [0, 1]),
        ([[1]] * 3 + [[0]] * 3, [0, 1]),
        (torch.tensor([[1]] * 3 + [[0]] * 3), [0, 1]),
        ([torch.tensor(1)] * 3 + [torch.tensor(0)] * 3, [0, 1]),
        ([np.int64(1)] * 3 + [0] * 3, [0, 1]),
        ([np.str_("b")] * 3 + ["a"] * 3, ["a", "b"]),
        (Column(["b"] * 3 + ["a"] * 3), ["a", "b"]),
        (np.array(["b"] * 3 + ["a"] * 3, dtype=object), ["a", "b"]),
        ([("cat", 2)] * 3 + [("cat", 1)] * 3, [("cat", 1), ("cat", 2)]),
        (range(10, 16), None),
        (np.array(["2024-01-02"] * 3 + ["2024-01-01"] * 3, dtype="M8[ns]"), None),
        ([True] * 3 + [False] * 3, [False, True]),
        (["9"] * 3 + ["10"] * 3, ["10", "9"]),
    ],
)
def test_labels_and_groups_of_any_kind_that_sorts(labels, classes):
    names, index = encode(labels, "labels")
    if classes is None:
        assert len(names) in (2, 6)
        return
    assert names == classes
    assert [type(name) for name in names] == [type(name) for name in classes]  # Python's own, not numpy's
    assert index.tolist() == [1, 1, 1, 0, 0, 0]
    tasks = q.ClassTasks(X[:6], labels, groups=labels, way=2, queries=2)
    assert tasks.classes == tasks.class_groups == classes
    assert len(tasks.split({"all": classes}, by="group")["all"]) == 2


def test_a_hundred_thousand_labels_are_read_in_a_moment():
    names = [f"alphabet{i // 2000}/character{i // 20:04d}" for i in range(130_000)]
    start = time.process_time()
    assert len(encode(names, "labels")[0]) == 6_500
    assert time.process_time() - start < 0.5


def test_groups_of_a_table_column_may_tear_a_class_with_a_message():
    with pytest.raises(ValueError, match="class 0 is in the groups 'a' and 'b'"):
        q.ClassTasks(X, Y, groups=Column(["a"] * 3 + ["b"] * 9), way=2, queries=2)
    with pytest.raises(ValueError, match=r"groups \('a', 1\) and \('b', 2\)"):
        q.ClassTasks(X, Y, groups=[("a", 1)] * 3 + [("b", 2)] * 9, way=2, queries=2)


def test_tuples_group_the_classes_of_a_task(generator):
    groups = [("ward", 1)] * 6 + [("ward", 2)] * 6
    labels = [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    tasks = q.ClassTasks(torch.tensor(labels), labels, groups=groups, way=2, queries=2, within_group=True)
    x = tasks.sample(40, generator=generator).support.x
    assert torch.equal(x[:, 0] // 2, x[:, 1] // 2)


def test_names_may_be_chosen_by_arrays_and_tensors():
    tasks = q.ClassTasks(X, Y, groups=np.array(Y) + 5, way=2, queries=2)
    for chosen in (np.array([0, 1]), torch.tensor([0, 1]), (np.int64(0), 1)):
        assert tasks.only(classes=chosen).classes == [0, 1]
        assert tasks.split({"a": chosen})["a"].classes == [0, 1]
    assert len(tasks.only(groups=np.array([5, 6]))) == 2


EXPECTED = np.arange(24).reshape(12, 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "x",
    [
        EXPECTED.astype(np.float32)[::-1][::-1],
        EXPECTED[:, ::-1].astype(np.float64)[:, ::-1],
        np.ascontiguousarray(EXPECTED[::-1]).astype(np.float32)[::-1],
        EXPECTED.astype(">f4"),
        EXPECTED.astype(">f8"),
        EXPECTED.astype(np.longdouble),
        EXPECTED.astype(np.float16),
        EXPECTED.astype(np.uint16),
        EXPECTED.astype(">u2"),
        EXPECTED.astype(np.uint32),
        EXPECTED.astype(np.uint64),
        EXPECTED.astype(object),
        Column(EXPECTED.tolist()),
        EXPECTED.astype(np.float64).tolist(),
        np.asfortranarray(EXPECTED.astype(np.float32)),
        torch.from_numpy(EXPECTED).to(torch.uint16),
        torch.from_numpy(EXPECTED).bfloat16(),
        torch.from_numpy(EXPECTED).float().requires_grad_(),
        list(torch.from_numpy(EXPECTED).float()),
    ],
)
def test_numbers_of_any_type_and_layout_are_features(x):
    tasks = q.ClassTasks(x, Y, way=2, queries=2)
    found = tasks.examples(torch.arange(12))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.tolist() == EXPECTED.tolist()
    assert len(tasks.checksum()) == 64


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, ">i4"])
def test_signed_integers_are_tokens_and_stay(kind):
    found = q.ClassTasks(EXPECTED.astype(kind), Y, way=2, queries=2).examples(torch.arange(12))
    assert found.dtype == getattr(torch, np.dtype(kind).newbyteorder("=").name)
    assert found.tolist() == EXPECTED.tolist()


@pytest.mark.parametrize("x", [EXPECTED % 2 == 0, torch.from_numpy(EXPECTED % 2 == 0)])
def test_booleans_become_floats_and_are_stored_as_they_are(x):
    tasks = q.ClassTasks(x, Y, way=2, queries=2)
    assert tasks.x.dtype == torch.bool
    assert tasks.examples(torch.arange(2)).tolist() == [[1.0, 0.0]] * 2
    assert len(tasks.checksum()) == 64


@pytest.mark.filterwarnings("error")
def test_a_read_only_file_is_read_without_a_warning_and_left_alone(tmp_path):
    np.save(tmp_path / "x.npy", EXPECTED.astype(np.uint8))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    tasks = q.ClassTasks(x, Y, way=2, queries=2)
    tasks.x.zero_()
    assert x.tolist() == EXPECTED.tolist()


def test_the_checksum_does_not_depend_on_the_layout():
    x = EXPECTED.astype(np.float32)
    sums = {q.ClassTasks(v, Y, way=2, queries=2).checksum() for v in (x, x.astype(">f4"), np.asfortranarray(x))}
    assert len(sums) == 1


TAIL = ["rare"] * 2 + ["a"] * 5 + ["b"] * 4 + ["single"]


def test_drop_small_leaves_out_the_classes_that_are_too_small(generator):
    x = torch.arange(12.0)
    tasks = q.ClassTasks(x, TAIL, groups=[t[0] for t in TAIL], way=2, shot=1, queries=3, drop_small=True)
    assert tasks.classes == ["a", "b"]
    assert tasks.class_groups == ["a", "b"]
    assert tasks.dropped == ["rare", "single"]
    assert tasks.examples(torch.arange(9)).tolist() == list(range(2, 11))
    assert set(tasks.sample(50, generator=generator).query.x.unique().tolist()) == set(range(2, 11))
    assert tasks.checksum() == tasks.replace(queries=1).checksum()


def test_drop_small_goes_along_with_replace_and_split(generator):
    tasks = q.ClassTasks(torch.arange(12.0), TAIL, way=2, shot=1, queries=1, drop_small=True)
    assert tasks.classes == ["a", "b", "rare"]
    fewer = tasks.replace(queries=3)
    assert (fewer.classes, fewer.dropped) == (["a", "b"], ["single", "rare"])
    assert (tasks.classes, tasks.dropped) == (["a", "b", "rare"], ["single"])
    assert tasks.split({"a": ["a", "b"]})["a"].classes == ["a", "b"]
    whole = q.ClassTasks(X, Y, way=2, queries=2, drop_small=True)
    assert whole.dropped == []
    assert whole.replace(drop_small=False).x is whole.x


def test_replace_changes_the_settings_of_a_copy(generator):
    tasks = addressed(way=5)
    other = tasks.replace(way=3, shot=2, queries=4)
    assert other.sample(1, generator=generator).query.x.shape == (1, 12, 3)
    assert tasks.way == (5, 5)
    assert other.x is tasks.x


def test_only_keeps_some_classes_or_groups():
    tasks = addressed(way=2)
    assert tasks.only(classes=["latin3", "greek0"]).classes == ["greek0", "latin3"]
    latin = tasks.only(groups=["latin"])
    assert latin.classes == ["latin0", "latin1", "latin2", "latin3"]
    assert {NAMES[int(k)] for k in latin.x[:, 0]} == set(latin.classes)
    assert len(latin.x) == 4 * PER_CLASS


@pytest.mark.parametrize("by", ["class", "group"])
def test_random_splits_are_disjoint_and_of_the_asked_size(by, generator):
    parts = addressed(way=2).split({"train": 1 / 3, "validation": 1 / 3, "test": 1 / 3}, by=by, generator=generator)
    assert list(parts) == ["train", "validation", "test"]
    assert [len(part) for part in parts.values()] == [4, 4, 4]
    assert sorted(name for part in parts.values() for name in part.classes) == sorted(NAMES)
    if by == "group":
        assert all(len(set(part.class_groups or ())) == 1 for part in parts.values())
    for part in parts.values():
        assert {NAMES[int(k)] for k in part.x[:, 0]} == set(part.classes)


def test_a_random_split_is_decided_by_its_generator_and_may_leave_classes_out():
    tasks = addressed(way=2)
    draws = [tasks.split({"a": 0.5, "b": 0.25}, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert draws[0]["a"].classes == draws[1]["a"].classes != draws[2]["a"].classes
    assert [len(draws[0][name]) for name in "ab"] == [6, 3]


def test_a_split_by_names_and_what_is_left_at_random(generator):
    tasks = addressed(way=2)
    by_name = tasks.split({"train": ["greek", "runic"], "test": ["latin"]}, by="group")
    assert by_name["test"].classes == [f"latin{i}" for i in range(4)]
    mixed = tasks.split({"test": ["latin0", "latin1"], "train": 1.0}, generator=generator)
    assert set(mixed["train"].classes) == set(NAMES) - {"latin0", "latin1"}


def test_fractions_may_be_of_any_type_and_are_of_what_is_left(generator):
    tasks = addressed(way=2)
    parts = tasks.split({"a": np.float32(0.5), "b": np.float64(0.25), "c": np.float32(0.25)}, generator=generator)
    assert [len(part) for part in parts.values()] == [6, 3, 3]
    parts = tasks.split({"test": NAMES[:4], "train": 0.5}, generator=generator)
    assert len(parts["train"]) == 4  # half of the other eight


def test_numpy_numbers_are_settings():
    tasks = addressed(way=np.int64(3), shot=(np.int32(1), np.int32(2)), queries=np.int64(2))
    assert (tasks.way, tasks.shot, tasks.queries) == ((3, 3), (1, 2), 2)
    assert type(tasks.replace(queries=np.int16(1)).queries) is int


def test_the_checksum_knows_examples_and_names():
    assert addressed().checksum() == addressed(way=3, queries=2).checksum()
    others = (addressed(per_class=16), addressed(way=2).only(groups=["latin"]))
    assert len({addressed().checksum(), *(tasks.checksum() for tasks in others)}) == 3


X, Y = torch.zeros(12, 2), [0] * 6 + [1] * 6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: q.ClassTasks(X, Y[:-1], way=2), ["12 examples, 11 labels", "one label"]),
        (lambda: q.ClassTasks(X, Y, groups=["a"], way=2), ["1 groups", "required"]),
        (lambda: q.ClassTasks(X / 0, Y, way=2), ["12 of 12 examples", "NaN or infinite", "impute"]),
        (lambda: q.ClassTasks(np.array([0.0, np.inf, 1, 1]), [0, 0, 1, 1], way=2), ["1 of 4 examples", "impute"]),
        (lambda: q.ClassTasks(X, Y, way=5), ["2 classes for way=5", "lower the way"]),
        (lambda: q.ClassTasks(X, Y, way=1), ["at least 2"]),
        (lambda: q.ClassTasks(X, Y, way=(3, 2)), ["at least 2"]),
        (lambda: q.ClassTasks(X, Y, way=2, shot=0), ["shot=(0, 0)", "at least 1"]),
        (lambda: q.ClassTasks(X, Y, way=2, queries=0), ["queries=0", "at least 1"]),
        (lambda: q.ClassTasks(X, Y, way=2, shot=2, queries=5), ["class 0 has 6 examples", "2 + 5 = 7", "lower"]),
        (
            lambda: q.ClassTasks(X, ["rare"] * 2 + ["common"] * 10, way=2, queries=2),
            ["class 'rare' has 2 examples", "1 + 2 = 3", "leave the class out", "drop_small=True"],
        ),
        (
            lambda: q.ClassTasks(X, Y, groups=["a"] * 3 + ["b"] * 9, way=2, queries=2),
            ["class 0 is in the groups 'a' and 'b'", "rename it"],
        ),
        (lambda: q.ClassTasks(X, Y, way=2, queries=2, within_group=True), ["no groups", "groups="]),
        (
            lambda: q.ClassTasks(X, Y, groups=["a"] * 6 + ["b"] * 6, way=2, queries=2, within_group=True),
            ["no group has 2 classes", "within_group=False"],
        ),
        (lambda: q.ClassTasks(X, np.eye(2)[Y], way=2), ["labels have shape (12, 2)", "labels.argmax(1)"]),
        (lambda: q.ClassTasks(X, torch.eye(2)[Y], way=2), ["labels have shape (12, 2)", "labels.argmax(1)"]),
        (lambda: q.ClassTasks(X, [[0, 1]] * 12, way=2), ["labels have shape (12, 2)", "one value for each example"]),
        (lambda: q.ClassTasks(X, [[0], [0, 1]] * 6, way=2), ["labels are rows of different lengths"]),
        (lambda: q.ClassTasks(X, [{"a": 1}] * 12, way=2), ["labels hold values that are no names", "dict"]),
        (lambda: q.ClassTasks(X, 3, way=2), ["labels are a single int"]),
        (lambda: q.ClassTasks(X, np.array(3), way=2), ["labels have shape ()"]),
        (lambda: q.ClassTasks(X, Y, groups=[["a", "b"]] * 12, way=2), ["groups have shape (12, 2)"]),
        (lambda: q.ClassTasks(X, [1, "1"] * 6, way=2), ["types that do not sort together (int, str)", "convert them"]),
        (lambda: q.ClassTasks(X, Y, groups=[1, "1"] * 6, way=2), ["groups of types that do not sort", "in groups"]),
        (
            lambda: q.ClassTasks(X, ["a", None, "b", None] * 3, way=2),
            ["6 of 12 labels are missing", "example 1", "leave these examples out"],
        ),
        (lambda: q.ClassTasks(X, [0.0, 1.0, float("nan")] * 4, way=2), ["4 of 12 labels are missing", "example 2"]),
        (lambda: q.ClassTasks(X, np.array([0.0, 1.0, np.nan] * 4), way=2), ["4 of 12 labels are missing"]),
        (lambda: q.ClassTasks(X, np.array(["NaT"] * 12, dtype="M8[ns]"), way=2), ["12 of 12 labels are missing"]),
        (lambda: q.ClassTasks(X, Y, groups=["a"] * 11 + [None], way=2), ["1 of 12 groups are missing", "example 11"]),
        (lambda: q.ClassTasks(X, Y, groups=Column(["a"] * 11 + [np.nan]), way=2), ["1 of 12 groups are missing"]),
        (lambda: q.ClassTasks(X[0, 0], [0], way=2), ["single value", "(n, *input)"]),
        (lambda: q.ClassTasks(["a", "b"], [0, 1], way=2), ["type <U1", "required are numbers"]),
        (lambda: q.ClassTasks(np.array([1, "x"], dtype=object), [0, 1], way=2), ["type object", "are numbers"]),
        (lambda: q.ClassTasks(np.array([1, None]), [0, 1], way=2), ["1 of 2 examples", "NaN", "impute"]),
        (lambda: q.ClassTasks(X.to(torch.complex64), Y, way=2), ["complex64", "required are numbers"]),
        (lambda: q.ClassTasks([[1, 2], [1]], [0, 1], way=2), ["same shape for all", "resize, crop or pad"]),
        (lambda: q.ClassTasks([X[0], X[0, :1]], [0, 1], way=2), ["same shape for all", "resize, crop or pad"]),
        (lambda: q.ClassTasks(X, Y, way=2.5), ["way=2.5", "whole number"]),
        (lambda: q.ClassTasks(X, Y, way=2, shot=(1, 2, 3)), ["shot=(1, 2, 3)", "(lowest, highest)"]),
        (lambda: q.ClassTasks(X, Y, way=2, queries=1.5), ["queries=1.5", "whole number"]),
        (
            lambda: q.ClassTasks(X, TAIL, way=3, queries=3, drop_small=True),
            ["2 classes (2 with fewer than shot + queries = 4 examples were left out) for way=3", "the shot or the"],
        ),
        (lambda: q.ClassTasks(X, TAIL, way=2, drop_small=True), ["0 classes (4 with fewer", "lower the way, the shot"]),
        (lambda: addressed(way=2).replace(wya=3), ["'wya'", "choose among", "'way'"]),
        (lambda: addressed(way=2).replace(way=20), ["12 classes for way=20"]),
        (lambda: addressed(way=2).only(), ["either classes or groups"]),
        (lambda: addressed(way=2).only(classes=["greek9"]), ["'greek9'", "not in the data", "'greek0'"]),
        (lambda: addressed(way=2).split({"a": 0.8, "b": 0.3}), ["add up to 1.1", "at most 1"]),
        (lambda: addressed(way=2).split({"a": 1.2, "b": -0.3}), ["at least 0"]),
        (lambda: addressed(way=2).split({"a": 0.8}), ["generator=torch.Generator()"]),
        (
            lambda: addressed(way=2).split({"train": NAMES[:4], "test": NAMES[3:6]}),
            ["class 'greek3'", "'train' and 'test'", "must not overlap"],
        ),
        (
            lambda: addressed(way=2).split({"train": ["greek"], "test": ["greek"]}, by="group"),
            ["group 'greek'", "must not overlap"],
        ),
        (lambda: addressed(way=2).split({"train": ["klingon"]}, by="group"), ["'train'", "'klingon'"]),
        (lambda: addressed(way=2).split({"train": ["greek0"], "test": NAMES[1:]}), ["part 'train'", "1 classes"]),
        (lambda: addressed(way=2).split({"a": 0.5}, by="colour"), ["by='colour'", "'class' or 'group'"]),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_was_given_what_is_required_and_what_to_do(call, words):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_groups_are_required_for_a_split_by_group():
    with pytest.raises(ValueError, match="no groups: pass groups="):
        q.ClassTasks(X, Y, way=2, queries=2).split({"a": [0]}, by="group")


def test_repr_says_what_is_in_it():
    assert repr(addressed(way=3, shot=2, queries=4)) == (
        "ClassTasks(108 examples of 12 classes, 3 groups; way=(3, 3), shot=(2, 2), queries=4)"
    )
    assert len(addressed(way=2)) == 12
