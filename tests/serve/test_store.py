"""The store: nothing acknowledged is lost, and limits hold."""

import sqlite3
import threading

import pytest

from quickstudy.serve import Limits
from quickstudy.serve.refusal import Refusal
from quickstudy.serve.rows import Stored
from quickstudy.serve.state_file import VERSION
from quickstudy.serve.store import Store

ONE = Stored(b"x", b"png")


@pytest.fixture
def store(tmp_path):
    limits = Limits(tasks=2, classes=3, examples_per_class=4, examples_per_task=6)
    found = Store(tmp_path / "a" / "b", limits)
    yield found
    found.close()


def test_what_is_stored_is_found_again_by_another_store(store, tmp_path):
    task = store.create("shapes")
    ids, now = store.add_examples(task.id, "circle", [ONE, Stored(b"y", b"other")])
    store.add_class(task.id, "cross")
    assert [(each.name, each.examples) for each in now.classes] == [("circle", 2)]
    other = Store(tmp_path / "a" / "b", Limits())
    assert other.tasks() == store.tasks()
    assert [(each.name, each.examples) for each in other.task(task.id).classes] == [("circle", 2), ("cross", 0)]
    assert other.examples(task.id) == [(ids[0], "circle"), (ids[1], "circle")]
    assert other.png(task.id, ids[1]) == b"other"
    support = other.support(task.id)
    assert (support.ids, support.labels, support.x) == (tuple(ids), ("circle", "circle"), (b"x", b"y"))
    other.close()


def test_each_change_gives_the_task_another_version(store):
    task = store.create("shapes").id
    seen = [store.version(task)]
    for change in (
        lambda: store.add_class(task, "a"),
        lambda: store.add_examples(task, "a", [ONE]),
        lambda: store.rename_class(task, "a", "b"),
        lambda: store.delete_example(task, store.examples(task)[0][0]),
        lambda: store.delete_class(task, "b"),
    ):
        change()
        seen.append(store.version(task))
    assert seen == [0, 1, 2, 3, 4, 5]


def test_what_is_refused_changes_nothing(store):
    task = store.create("shapes").id
    store.add_examples(task, "a", [ONE] * 3)
    before = store.version(task), store.task(task)
    for words, change in {
        "class 'a' has 3 examples and 2 more were sent; required are at most 4": lambda: store.add_examples(
            task, "a", [ONE] * 2
        ),
        "class 'new' has 0 examples and 5 more": lambda: store.add_examples(task, "new", [ONE] * 5),
        "the task has 3 examples and 4 more were sent; required are at most 6": lambda: store.add_examples(
            task, "new", [ONE] * 4
        ),
        "class 'a' is there already": lambda: store.add_class(task, "a"),
    }.items():
        with pytest.raises(Refusal, match=words) as refused:
            change()
        assert refused.value.status == 409
        assert (store.version(task), store.task(task)) == before


def test_tasks_and_classes_are_limited_until_one_is_deleted(store):
    first = store.create("1").id
    second = store.create("2").id
    with pytest.raises(Refusal, match="there are 2 tasks, which is the limit"):
        store.create("3")
    store.delete(first)
    store.create("3")
    for name in "abc":
        store.add_class(second, name)
    for call in (lambda: store.add_class(second, "d"), lambda: store.add_examples(second, "d", [ONE])):
        with pytest.raises(Refusal, match="the task has 3 classes, which is the limit"):
            call()
    store.delete_class(second, "a")
    store.add_class(second, "d")


def test_classes_can_be_renamed_but_not_to_another_class(store):
    task = store.create("shapes").id
    store.add_examples(task, "a", [ONE])
    store.add_class(task, "b")
    assert store.rename_class(task, "a", "c").examples == 1
    assert store.rename_class(task, "c", "c").name == "c"
    assert [label for _, label in store.examples(task)] == ["c"]
    with pytest.raises(Refusal, match="class 'b' is there already"):
        store.rename_class(task, "c", "b")


def test_what_is_not_there_is_404(store):
    task = store.create("shapes").id
    other = store.create("other").id
    (example,), _ = store.add_examples(other, "a", [ONE])
    for call in (
        lambda: store.task("no"),
        lambda: store.version("no"),
        lambda: store.delete("no"),
        lambda: store.add_class("no", "a"),
        lambda: store.examples("no"),
        lambda: store.support("no"),
        lambda: store.png("no", example),
        lambda: store.png(task, example),  # of another task
        lambda: store.delete_example(task, example),
        lambda: store.delete_class(task, "a"),
        lambda: store.rename_class(task, "a", "b"),
    ):
        with pytest.raises(Refusal, match=r"there is no task|the task has no") as refused:
            call()
        assert refused.value.status == 404
    assert store.png(other, example) == b"png"


def test_deleting_a_task_deletes_all_that_is_in_it(store):
    task = store.create("shapes").id
    store.add_examples(task, "a", [ONE] * 3)
    store.delete(task)
    with sqlite3.connect(store.path) as db:
        assert [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("classes", "examples")] == [
            0,
            0,
        ]
    db.close()


def test_writers_in_many_threads_lose_nothing(tmp_path):
    store = Store(tmp_path, Limits())
    task = store.create("shapes").id
    threads = [
        threading.Thread(target=lambda name=name: [store.add_examples(task, name, [ONE]) for _ in range(10)])
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.examples for each in store.task(task).classes] == [10] * 4
    assert store.version(task) == 40
    store.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no database, and longer than one hundred bytes" * 9, "file is not a database"),
        ("CREATE TABLE theirs (x)", "it is the file of another program"),
        (f"PRAGMA application_id = {0x71737479}; PRAGMA user_version = {VERSION + 1}", f"it has version {VERSION + 1}"),
    ],
)
def test_a_file_that_is_not_a_state_of_this_version_is_refused(tmp_path, content, words):
    path = tmp_path / "tasks.sqlite"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        db = sqlite3.connect(path)
        db.executescript(content)
        db.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"{words}.*give another one with --state"):
        Store(tmp_path, Limits())
    assert path.read_bytes() == before


def test_a_state_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(ValueError, match="required is a folder that can be written to"):
        Store(tmp_path / "state", Limits())


def test_the_state_is_for_its_owner_alone(store):
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    assert store.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["tasks", "body_bytes", "pixels", "body_seconds"])
def test_limits_are_above_zero(name):
    with pytest.raises(ValueError, match=f"{name}=0; required is a number above 0"):
        Limits(**{name: 0})
