"""The engine: one adaptation for all that wait, and classifiers that are kept only as long as they are new."""

import asyncio
import time

import pytest

from quickstudy.packing import open_packed
from quickstudy.serve import Limits
from quickstudy.serve import engine as engine_module
from quickstudy.serve.engine import Engine
from quickstudy.serve.refusal import Refusal
from quickstudy.serve.store import Store
from tests.serve.small_server import drawing, learner_file

KNOWN = {"coverage": 0.9, "false_alarms": 0.05}


@pytest.fixture
def engine(tmp_path):
    store = Store(tmp_path / "state", Limits())
    found = Engine(open_packed(learner_file(tmp_path)), store, Limits(), kept=2)
    yield found
    found.close()
    store.close()


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """The versions for which a classifier was made."""
    versions = []

    class Counted(engine_module.Adapted):
        def __init__(self, packed, support, x):
            versions.append(support.version)
            time.sleep(0.02)
            super().__init__(packed, support, x)

    monkeypatch.setattr(engine_module, "Adapted", Counted)
    return versions


async def teach(engine: Engine, task: str, label: str, i: int = 0) -> None:
    engine.store.add_examples(task, label, await engine.take_in([drawing(label, i)]))


def test_all_that_wait_wait_for_one_adaptation(engine, made):
    async def run():
        task = engine.store.create("shapes").id
        for label in ("circle", "cross"):
            await teach(engine, task, label)
        answers = await asyncio.gather(*(engine.classify(task, [drawing("cross", i)], **KNOWN) for i in range(9)))
        assert {answer[0]["ranking"][0]["label"] for answer in answers} == {"cross"}
        assert made == [2]
        await engine.map(task)
        assert made == [2]

    asyncio.run(run())


def test_an_answer_knows_all_that_was_stored_before_the_question(engine, made):
    async def run():
        task = engine.store.create("shapes").id
        for label in ("circle", "cross"):
            await teach(engine, task, label)
        old = asyncio.create_task(engine.classify(task, [drawing("bar")], **KNOWN))
        await asyncio.sleep(0.01)  # the older classifier is being made
        await teach(engine, task, "bar")
        (new,) = await engine.classify(task, [drawing("bar", 1)], **KNOWN)
        assert new["ranking"][0]["label"] == "bar"
        assert len((await old)[0]["ranking"]) >= 2

    asyncio.run(run())
    assert sorted(made) == made


def test_only_the_last_used_are_kept(engine, made):
    async def run():
        tasks = [engine.store.create(name).id for name in "abc"]
        for i in (0, 1, 0, 2, 0, 1):
            await engine.map(tasks[i])
        engine.forget(tasks[0])
        await engine.map(tasks[0])

    asyncio.run(run())
    assert len(made) == 5  # a, b, c, b again, and a after it was forgotten


def test_what_cannot_be_made_is_said_to_all_and_tried_again(engine, monkeypatch):
    async def run():
        task = engine.store.create("shapes").id
        with monkeypatch.context() as patch:
            patch.setattr(engine.store, "support", lambda _: 1 / 0)
            found = await asyncio.gather(*(engine.map(task) for _ in range(3)), return_exceptions=True)
            assert [type(each) for each in found] == [ZeroDivisionError] * 3
        assert (await engine.map(task))[1] == []
        with pytest.raises(Refusal, match="there is no task"):
            await engine.map("no")

    asyncio.run(run())


def test_a_task_that_the_learner_refuses_is_409(engine, monkeypatch):
    def refuse(*_):
        raise ValueError("a learner of two classes: take others away")

    async def run():
        task = engine.store.create("shapes").id
        monkeypatch.setattr(engine_module, "Adapted", refuse)
        with pytest.raises(Refusal, match="a learner of two classes: take others away") as refused:
            await engine.map(task)
        assert refused.value.status == 409

    asyncio.run(run())
