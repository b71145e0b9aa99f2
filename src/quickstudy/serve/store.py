"""What the server keeps: tasks, classes and examples in one SQLite file; what was acknowledged survives kill -9.

Each change is one transaction that is on the disk before the method returns, and gives its task the next version
number. Writing and reading have a connection each, so that reading does not wait for the disk.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from quickstudy.serve.limits import Limits, shortened
from quickstudy.serve.refusal import Refusal
from quickstudy.serve.rows import Class, Stored, Support, Task
from quickstudy.serve.state_file import connect, one_number, transaction


class Store:
    """The file ``tasks.sqlite`` in a folder; its methods may be called from any thread.

    Args:
        folder: made if it is not there, for the owner alone.
        limits: how much of each a client may add.

    Raises:
        ValueError: a folder or file that cannot be used, is something else, or was made by a newer version.
    """

    def __init__(self, folder: Path, limits: Limits):
        self.path, self.limits = folder / "tasks.sqlite", limits
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            self._writer, self._reader = connect(self.path), connect(self.path)
            self._file = _identity(self.path)
        except (sqlite3.Error, OSError) as error:
            raise ValueError(
                f"the state {self.path} cannot be used ({error}); required is a folder that can be written to, new or "
                "made by quickstudy serve: give another one with --state"
            ) from error
        self._writing, self._reading = threading.Lock(), threading.Lock()

    def close(self) -> None:
        """Bring everything into the one file and leave it."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()

    def remember(self, name: str, value: str) -> str:
        """The value this state was begun with; ``value`` itself the first time."""
        with self._write() as db:
            db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
            return db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]

    def require_there(self) -> None:
        """Refusal 503 if the file is gone, or is another one: what is written then is lost."""
        try:
            there = _identity(self.path) == self._file
        except OSError:
            there = False
        if not there:
            raise Refusal(
                503,
                f"the state {self.path} is gone, or another file is in its place; nothing is kept any more: put it "
                "back if you moved it, and start the server anew",
            )

    def count(self) -> int:
        """How many tasks there are."""
        with self._read() as db:
            return one_number(db, "SELECT count(*) FROM tasks")

    def tasks(self) -> list[Task]:
        """All tasks, the oldest first."""
        with self._read() as db:
            return [
                _task(db, row) for row in db.execute("SELECT id, name, created FROM tasks ORDER BY rowid").fetchall()
            ]

    def task(self, task: str) -> Task:
        """One task; Refusal 404 if it is not there, as for all that follows."""
        with self._read() as db:
            return _task(db, _found(db, task))

    def version(self, task: str) -> int:
        """The number of changes of a task so far."""
        with self._read() as db:
            return _found(db, task)[3]

    def create(self, name: str) -> Task:
        """A new task; Refusal 409 if there are too many."""
        with self._write() as db:
            if one_number(db, "SELECT count(*) FROM tasks") >= self.limits.tasks:
                raise Refusal(409, f"there are {self.limits.tasks} tasks, which is the limit: delete one first")
            task = Task(secrets.token_urlsafe(16), name, datetime.now(UTC).isoformat(timespec="seconds"), ())
            db.execute("INSERT INTO tasks VALUES (?, ?, ?, 0)", (task.id, task.name, task.created))
            return task

    def delete(self, task: str) -> None:
        """Delete a task with everything in it."""
        with self._write() as db:
            _found(db, task)
            db.execute("DELETE FROM tasks WHERE id = ?", (task,))

    def add_class(self, task: str, name: str) -> Class:
        """A class without examples; Refusal 409 if it is there or there are too many."""
        with self._change(task) as db:
            if _class(db, task, name) is not None:
                raise Refusal(409, f"class {shortened(name)} is there already: add examples to it, or use another name")
            self._insert_class(db, task, name)
            return Class(name, 0)

    def rename_class(self, task: str, name: str, new: str) -> Class:
        """Give a class another name; Refusal 404 if it is not there, 409 if another has the new name."""
        with self._change(task) as db:
            number, other = _found_class(db, task, name), _class(db, task, new)
            if other not in (None, number):
                raise Refusal(409, f"class {shortened(new)} is there already: choose another name")
            db.execute("UPDATE classes SET name = ? WHERE number = ?", (new, number))
            return Class(new, one_number(db, "SELECT count(*) FROM examples WHERE class = ?", number))

    def delete_class(self, task: str, name: str) -> None:
        """Delete a class with its examples; Refusal 404 if it is not there."""
        with self._change(task) as db:
            db.execute("DELETE FROM classes WHERE number = ?", (_found_class(db, task, name),))

    def add_examples(self, task: str, label: str, examples: Sequence[Stored]) -> tuple[list[str], Task]:
        """Add all of them or none, and the class if it is new: their ids, and the task as it is now.

        Raises:
            Refusal: 409, more classes or examples than allowed.
        """
        with self._change(task) as db:
            number = _class(db, task, label)
            if number is None:
                number = self._insert_class(db, task, label)
            self._require_room(db, task, number, label, len(examples))
            ids = [secrets.token_urlsafe(9) for _ in examples]
            rows = [(new, number, example.x, example.png) for new, example in zip(ids, examples, strict=True)]
            db.executemany("INSERT INTO examples (id, class, x, png) VALUES (?, ?, ?, ?)", rows)
            return ids, _task(db, _found(db, task))

    def delete_example(self, task: str, example: str) -> None:
        """Delete one example; its class stays, even if nothing is left in it."""
        with self._change(task) as db:
            _example(db, task, example)
            db.execute("DELETE FROM examples WHERE id = ?", (example,))

    def examples(self, task: str) -> list[tuple[str, str]]:
        """Id and label of each example, the oldest first."""
        with self._read() as db:
            _found(db, task)
            return db.execute(f"SELECT e.id, c.name {_OF_TASK} ORDER BY e.number", (task,)).fetchall()

    def png(self, task: str, example: str) -> bytes:
        """The copy of an example that is kept to be shown."""
        with self._read() as db:
            return _example(db, task, example)

    def support(self, task: str) -> Support:
        """All that a classifier of the task is made of."""
        with self._read() as db:
            version = _found(db, task)[3]
            rows = db.execute(f"SELECT e.id, c.name, e.x {_OF_TASK} ORDER BY e.number", (task,)).fetchall()
        ids, labels, x = zip(*rows, strict=True) if rows else ((), (), ())
        return Support(version, ids, labels, x)

    def _insert_class(self, db: sqlite3.Connection, task: str, name: str) -> int:
        if one_number(db, "SELECT count(*) FROM classes WHERE task = ?", task) >= self.limits.classes:
            raise Refusal(409, f"the task has {self.limits.classes} classes, which is the limit: delete one first")
        cursor = db.execute("INSERT INTO classes (task, name) VALUES (?, ?)", (task, name))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _require_room(self, db: sqlite3.Connection, task: str, number: int, label: str, more: int) -> None:
        there = one_number(db, "SELECT count(*) FROM examples WHERE class = ?", number)
        if there + more > self.limits.examples_per_class:
            raise Refusal(
                409,
                f"class {shortened(label)} has {there} examples and {more} more were sent; required are at most "
                f"{self.limits.examples_per_class}: send fewer, or delete some",
            )
        there = one_number(db, f"SELECT count(*) {_OF_TASK}", task)
        if there + more > self.limits.examples_per_task:
            raise Refusal(
                409,
                f"the task has {there} examples and {more} more were sent; required are at most "
                f"{self.limits.examples_per_task}: send fewer, or delete some",
            )

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._reading, transaction(self._reader, "DEFERRED"):
            yield self._reader

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            self.require_there()
            with transaction(self._writer, "IMMEDIATE"):
                yield self._writer

    @contextmanager
    def _change(self, task: str) -> Iterator[sqlite3.Connection]:
        with self._write() as db:
            _found(db, task)
            yield db
            db.execute("UPDATE tasks SET version = version + 1 WHERE id = ?", (task,))


_OF_TASK = "FROM examples e JOIN classes c ON e.class = c.number WHERE c.task = ?"


def _identity(path: Path) -> tuple[int, int]:
    """The file itself, whatever it is called."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _found(db: sqlite3.Connection, task: str) -> tuple[str, str, str, int]:
    row = db.execute("SELECT id, name, created, version FROM tasks WHERE id = ?", (task,)).fetchone()
    if row is None:
        raise Refusal(404, f"there is no task {shortened(task)}: GET /tasks lists them")
    return row


def _task(db: sqlite3.Connection, row: Sequence[str | int]) -> Task:
    classes = db.execute(
        "SELECT c.name, count(e.number) FROM classes c LEFT JOIN examples e ON e.class = c.number "
        "WHERE c.task = ? GROUP BY c.number ORDER BY c.number",
        (row[0],),
    ).fetchall()
    return Task(str(row[0]), str(row[1]), str(row[2]), tuple(Class(*values) for values in classes))


def _class(db: sqlite3.Connection, task: str, name: str) -> int | None:
    row = db.execute("SELECT number FROM classes WHERE task = ? AND name = ?", (task, name)).fetchone()
    return None if row is None else row[0]


def _found_class(db: sqlite3.Connection, task: str, name: str) -> int:
    number = _class(db, task, name)
    if number is None:
        raise Refusal(404, f"the task has no class {shortened(name)}: GET /tasks/{task} lists its classes")
    return number


def _example(db: sqlite3.Connection, task: str, example: str) -> bytes:
    _found(db, task)
    row = db.execute(f"SELECT e.png {_OF_TASK} AND e.id = ?", (task, example)).fetchone()
    if row is None:
        raise Refusal(404, f"the task has no example {shortened(example)}: GET /tasks/{task}/examples lists them")
    return row[0]
