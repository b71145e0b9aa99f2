"""The SQLite file behind the store: its tables, its version, and connections that lose nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

VERSION = 1
_OURS = 0x71737479  # application_id: "qsty"
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, created TEXT NOT NULL, version INTEGER NOT NULL
) STRICT;
CREATE TABLE classes (
    number INTEGER PRIMARY KEY, task TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE, name TEXT NOT NULL,
    UNIQUE (task, name)
) STRICT;
CREATE TABLE examples (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    class INTEGER NOT NULL REFERENCES classes ON DELETE CASCADE,
    x BLOB NOT NULL, png BLOB NOT NULL
) STRICT;
CREATE INDEX examples_of_class ON examples (class);
"""


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a state file, which is made if it is not there; what it commits is on the disk.

    Raises:
        sqlite3.Error: a file that cannot be used, is another program's, or was made by a newer version.
    """
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        with transaction(db, "IMMEDIATE"):
            _prepare(db)
        db.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables of a new file, or see that those that are there are ours."""
    version, owner = one_number(db, "PRAGMA user_version"), one_number(db, "PRAGMA application_id")
    if version == 0 and owner == 0 and not one_number(db, "SELECT count(*) FROM sqlite_master"):
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {_OURS}")
        db.execute(f"PRAGMA user_version = {VERSION}")
    elif owner != _OURS:
        raise sqlite3.DatabaseError("it is the file of another program")
    elif version != VERSION:
        raise sqlite3.DatabaseError(
            f"it has version {version}, and this version of quickstudy reads version {VERSION}: install a newer one"
        )


@contextmanager
def transaction(db: sqlite3.Connection, kind: str) -> Iterator[None]:
    """All that is done within it, or nothing; ``kind`` is IMMEDIATE for one that writes, otherwise DEFERRED."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def one_number(db: sqlite3.Connection, query: str, *values: object) -> int:
    """The one number that a query finds."""
    with closing(db.execute(query, values)) as cursor:
        return cursor.fetchone()[0]
