"""From the stored examples of a task to answers: adapted classifiers are kept, and made again from the store."""

import asyncio
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from quickstudy.estimators.answers import Answer
from quickstudy.packing import Packed
from quickstudy.readers import ImageReader
from quickstudy.serve.adapted import Adapted, Place
from quickstudy.serve.limits import Limits
from quickstudy.serve.pictures import decoded, kept_copy
from quickstudy.serve.refusal import Refusal
from quickstudy.serve.rows import Stored, Support
from quickstudy.serve.store import Store

Result = TypeVar("Result")


class Engine:
    """Reads images, classifies, and draws maps, in a few threads of its own with one thread of torch each.

    Args:
        packed: the learner; it must read images.
        store: the tasks.
        limits: of one request.
        workers: threads that compute.
        kept, kept_bytes: how many adapted classifiers are kept, those last asked for, and how large they may be
            together; the last one is kept in any case.

    Raises:
        ValueError: a learner that reads something else than images.
    """

    def __init__(
        self,
        packed: Packed,
        store: Store,
        limits: Limits,
        *,
        workers: int = 2,
        kept: int = 32,
        kept_bytes: int = 256_000_000,
    ):
        if not isinstance(packed.reader, ImageReader):
            raise ValueError(
                f"the learner reads {packed.reader.kind}, and the server takes images; required is one of images, "
                "such as --learner characters"
            )
        cast(Any, packed.learner).to(memory_format=torch.channels_last)  # convolutions on a processor are faster so
        self.packed, self.store, self.limits = packed, store, limits
        self.reader = packed.reader
        self._pool = ThreadPoolExecutor(workers, "quickstudy", initializer=torch.set_num_threads, initargs=(1,))
        self._kept, self._most, self._most_bytes = OrderedDict[str, Adapted](), kept, kept_bytes
        self._wanted, self._guard = set[str](), Lock()  # tasks that are being adapted and were not forgotten
        self._making: dict[str, asyncio.Task[Adapted]] = {}

    def close(self) -> None:
        """Finish what is being computed, drop what nobody waits for any more, and end the threads."""
        self._pool.shutdown(cancel_futures=True)

    async def aside(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run what waits for the disk, and computes little, in a thread that does not keep others from computing."""
        return await asyncio.to_thread(function, *arguments)

    def forget(self, task: str) -> None:
        """Let go of what is kept of a task that is gone."""
        with self._guard:
            self._kept.pop(task, None)
            self._wanted.discard(task)

    async def take_in(self, files: Sequence[bytes]) -> list[Stored]:
        """What is stored of images.

        Raises:
            Refusal: 413, 415 or 422, an image that cannot be taken; the message says which.
        """
        return await self._run(self._take_in, files)

    async def classify(
        self, task: str, files: Sequence[bytes], *, coverage: float, false_alarms: float
    ) -> list[Answer]:
        """An answer for each image.

        Raises:
            Refusal: an image that cannot be taken; 404, no such task; 409, fewer than two classes with examples.
        """

        def use(adapted: Adapted) -> list[Answer]:
            _require_two_classes(adapted)
            return adapted.answer(self.read(files), coverage=coverage, false_alarms=false_alarms)

        return await self._with(task, use)

    async def map(self, task: str, files: Sequence[bytes] = ()) -> tuple[Support, list[Place], list[Place]]:
        """The examples of a task and where they lie, and where the given images lie (``Adapted.map``)."""
        return await self._with(
            task, lambda adapted: (adapted.support, *adapted.map(self.read(files) if files else None))
        )

    async def model(self, task: str) -> bytes:
        """The file that ``quickstudy predict`` takes; Refusal 409 as in ``classify``."""

        def use(adapted: Adapted) -> bytes:
            _require_two_classes(adapted)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.safetensors"
                adapted.save(path)
                return path.read_bytes()

        return await self._with(task, use)

    def read(self, files: Sequence[bytes]) -> Tensor:
        """Images (n, channels, size, size) as the learner reads them."""
        return torch.cat([self._read_one(self._decoded(i, files), _which(i, files)) for i in range(len(files))])

    def _take_in(self, files: Sequence[bytes]) -> list[Stored]:
        stored = []
        for i in range(len(files)):  # one after the other: decoded images are large
            image, which = self._decoded(i, files), _which(i, files)
            x = self._read_one(image, which).numpy()
            stored.append(Stored(zlib.compress(x.tobytes(), 1), kept_copy(image, which)))
        return stored

    def _decoded(self, i: int, files: Sequence[bytes]) -> Image.Image:
        return decoded(files[i], _which(i, files), self.limits, side=self.reader.size)

    def _read_one(self, image: Image.Image, which: str) -> Tensor:
        """(1, channels, size, size)."""
        try:
            return self.reader.read([image])
        except ValueError as error:
            raise Refusal(422, f"{which} cannot be read ({error}): send another image") from error

    async def _with(self, task: str, use: Callable[[Adapted], Result]) -> Result:
        """``use`` on the task's classifier, at least as new as the task is now."""
        wanted = await self.aside(self.store.version, task)
        with self._guard:
            adapted = self._kept.get(task)
            if adapted is not None:
                self._kept.move_to_end(task)
        while adapted is None or adapted.version < wanted:
            making = self._making.get(task)
            if making is None or making.done():
                making = asyncio.create_task(self._make(task))
                making.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody has seen it
                self._making[task] = making
            adapted = await asyncio.shield(making)
        return await self._run(use, adapted)

    async def _make(self, task: str) -> Adapted:
        """Adapt, and be gone before those that wait go on: a newer version needs another adaptation."""
        try:
            return await self._run(self._adapt, task)
        finally:
            self._making.pop(task, None)

    def _adapt(self, task: str) -> Adapted:
        with self._guard:
            before = self._kept.get(task)
            self._wanted.add(task)
        try:
            support = self.store.support(task)
            adapted = Adapted(self.packed, support, self._arrays(support), before)
            with self._guard:
                if task in self._wanted:  # it was not forgotten meanwhile
                    self._keep(task, adapted)
        except ValueError as error:
            raise Refusal(409, f"the learner cannot learn this task ({error})") from error
        finally:
            with self._guard:
                self._wanted.discard(task)
        return adapted

    def _keep(self, task: str, adapted: Adapted) -> None:
        """Keep it, and those last asked for beside it as far as they fit; the lock is held."""
        self._kept[task] = adapted
        self._kept.move_to_end(task)
        size = sum(each.nbytes for each in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > self._most or size > self._most_bytes):
            size -= self._kept.popitem(last=False)[1].nbytes

    def _arrays(self, support: Support) -> Tensor:
        shape = (self.reader.channels, self.reader.size, self.reader.size)
        rows = [np.frombuffer(zlib.decompress(x), np.float32).reshape(shape) for x in support.x]
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)

    async def _run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _require_two_classes(adapted: Adapted) -> None:
    if adapted.classes < 2:
        raise Refusal(
            409,
            f"the task has examples of {adapted.classes} class{'' if adapted.classes == 1 else 'es'}; required are two "
            "to tell apart: add examples",
        )


def _which(i: int, files: Sequence[bytes]) -> str:
    return f"file {i + 1} of {len(files)}"
