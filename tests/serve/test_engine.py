"""The engine: one adaptation for all that wait, and classifiers that are kept only as long as they are new."""

import asyncio
import faulthandler
import time
from types import SimpleNamespace

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
        def __init__(self, packed, support, x, before=None):
            versions.append(support.version)
            time.sleep(0.02)
            super().__init__(packed, support, x, before)

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
        assert {answer[0].ranking[0][0] for answer in answers} == {"cross"}
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
        assert new.ranking[0][0] == "bar"
        assert len((await old)[0].ranking) >= 2

    asyncio.run(run())
    assert sorted(made) == made


def test_a_newer_version_is_made_even_if_the_older_one_is_only_just_done(engine, monkeypatch):
    """What computes ends in the same turn of the loop in which a newer version is asked for."""

    async def run():
        loop = asyncio.get_running_loop()
        versions, made = [loop.create_future() for _ in range(2)], [loop.create_future() for _ in range(2)]
        ask, make = iter(versions), iter(made)

        async def aside(*_):
            return await next(ask)

        async def compute(function, *given):
            return await next(make) if function == engine._adapt else function(*given)

        monkeypatch.setattr(engine, "aside", aside)
        monkeypatch.setattr(engine, "_run", compute)
        first = asyncio.create_task(engine._with("a", lambda adapted: adapted.version))
        versions[0].set_result(1)
        await asyncio.sleep(0.01)
        second = asyncio.create_task(engine._with("a", lambda adapted: adapted.version))
        await asyncio.sleep(0.01)
        engine._kept["a"] = SimpleNamespace(version=1)
        made[0].set_result(SimpleNamespace(version=1))
        versions[1].set_result(2)
        loop.call_later(0.05, lambda: made[1].set_result(SimpleNamespace(version=2)))
        assert await asyncio.gather(first, second) == [1, 2]
        assert engine._making == {}

    faulthandler.dump_traceback_later(20, exit=True)  # a loop that spins hears nothing else
    try:
        asyncio.run(run())
    finally:
        faulthandler.cancel_dump_traceback_later()


def test_many_that_ask_while_others_add_are_all_answered(engine):
    async def run():
        task = engine.store.create("shapes").id
        for label in ("circle", "cross"):
            await teach(engine, task, label)
        asked = [asyncio.create_task(engine.classify(task, [drawing("bar")], **KNOWN)) for _ in range(20)]
        for i in range(9):
            await teach(engine, task, "bar", i)
            asked.append(asyncio.create_task(engine.classify(task, [drawing("bar")], **KNOWN)))
        answers = await asyncio.wait_for(asyncio.gather(*asked), 20)
        assert answers[-1][0].ranking[0][0] == "bar"

    asyncio.run(run())


def test_what_is_kept_is_limited_by_its_size(engine, made):
    async def run():
        engine._most = 9
        tasks = [engine.store.create(name).id for name in "abc"]
        for task in tasks:
            for label in ("circle", "cross"):
                await teach(engine, task, label)
            await engine.map(task)
        one = engine._kept[tasks[0]].nbytes
        assert one >= 2 * 4 * 28 * 28
        engine._most_bytes = 2 * one
        await teach(engine, tasks[2], "circle", 3)
        await engine.map(tasks[2])
        assert list(engine._kept) == [tasks[2]]  # its new version is larger, and beside it there is room for none
        engine._most_bytes = 1
        await engine.map(tasks[1])
        assert list(engine._kept) == [tasks[1]]  # the last one in any case

    asyncio.run(run())


def test_what_is_made_of_a_task_that_was_forgotten_meanwhile_is_not_kept(engine, made):
    async def run():
        task = engine.store.create("shapes").id
        await teach(engine, task, "circle")
        asked = asyncio.create_task(engine.map(task))
        while not made:
            await asyncio.sleep(0.002)
        engine.store.delete(task)
        engine.forget(task)
        await asked
        assert not engine._kept
        assert not engine._wanted

    asyncio.run(run())


def test_a_stop_drops_what_nobody_waits_for(engine):
    done = []
    for i in range(9):
        engine._pool.submit(lambda i=i: (time.sleep(0.05), done.append(i)))
    engine.close()
    assert len(done) < 9


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
