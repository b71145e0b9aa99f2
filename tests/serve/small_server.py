"""A small learner, drawings, and an application or a process to serve them."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from starlette.testclient import TestClient

import quickstudy as q
from quickstudy.packing import Packed, pack
from quickstudy.readers import ImageReader
from quickstudy.serve import Limits, create_app


def learner_file(folder: Path) -> Path:
    """The nearest neighbour among images as they are, as a file."""
    path = folder / "small.safetensors"
    pack(Packed(q.NearestNeighbour(), ImageReader()), path)
    return path


def drawing(kind: str, i: int = 0, *, size: int = 56, form: str = "PNG") -> bytes:
    """A circle, a cross or a bar, each a little different for another ``i``."""
    image = Image.new("L", (size, size), 255)
    pen, a, b = ImageDraw.Draw(image), 8 + i % 5, size - 8 - i % 3
    if kind == "circle":
        pen.ellipse((a, a, b, b), outline=0, width=5)
    elif kind == "cross":
        pen.line((a, a, b, b), fill=0, width=5)
        pen.line((a, b, b, a), fill=0, width=5)
    else:
        pen.line((size // 2, a, size // 2 + i % 4, b), fill=0, width=7)
    return encoded(image, form)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def noise(size: int = 32) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
    return encoded(Image.fromarray(values))


@contextmanager
def client(
    learner: Path | str, state: Path, *, token: str | None = None, limits: Limits | None = None, **options
) -> Iterator[TestClient]:
    """A client of an application; errors of the server are answers, as behind a socket."""
    app = create_app(learner, state=state, token=token, limits=limits)
    options.setdefault("base_url", "http://localhost")
    with TestClient(app, raise_server_exceptions=False, **options) as found:
        yield found


def add(client: TestClient, task: str, label: str, *images: bytes):
    files = [("files", (f"{i}.png", image, "image/png")) for i, image in enumerate(images)]
    return client.post(f"/tasks/{task}/examples", data={"label": label}, files=files)


def taught(client: TestClient, *kinds: str, shots: int = 2) -> str:
    """The id of a task with these classes."""
    task = client.post("/tasks", json={"name": "shapes"}).json()["id"]
    for kind in kinds:
        assert add(client, task, kind, *(drawing(kind, i) for i in range(shots))).status_code == 201
    return task


def ask(client: TestClient, path: str, *images: bytes, **options):
    return client.post(path, files=[("files", ("x", image)) for image in images], **options)


class Running:
    """``quickstudy serve`` in a process of its own."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None):
        command = "import typer; from quickstudy.commands_serve import serve; typer.run(serve)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "--port", "0", *map(str, arguments)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        found = re.search(r"http://\S+:(\d+)/", self.said)
        assert found, self.said + self.process.stderr.read()
        self.url, self.port = found.group().rstrip("/"), int(found.group(1))

    def end(self) -> str:
        """Wait for the process; what else it said."""
        return self.process.communicate(timeout=30)[1]

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
