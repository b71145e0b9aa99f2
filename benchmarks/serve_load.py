"""The server under load from another process: classifications per second, latency, errors, memory; and a stop.

    python benchmarks/serve_load.py                       # ten minutes; appends to benchmarks/results/serve.jsonl
    python benchmarks/serve_load.py --seconds 20 --trial  # nothing is stored
    python benchmarks/serve_load.py --stop-in-the-middle  # SIGTERM while requests are in flight

`quickstudy serve` runs on loopback in a process of its own, with a 5-way 5-shot task of made drawings. This process
asks over a fixed number of connections, each of which sends its next image when it has the answer to the last. Latency
is from the first byte sent to the last byte received, in this process, which shares the processors with the server. The
first two seconds do not count.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastapi
import numpy as np
import torch
import uvicorn
from PIL import Image, ImageDraw

RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
WAY, SHOT = 5, 5
SIDE = 112
BOUNDARY = "between"
WARM_UP = 2.0


class Load:
    """What the connections met.

    Attributes:
        latencies: seconds, of answers that count.
        errors: what was answered otherwise, or not at all.
        ended: how each connection ended after the stop.
    """

    def __init__(self, port: int, path: str, bodies: list[bytes], begin: float):
        self.port, self.path, self.bodies, self.begin = port, path, bodies, begin
        self.latencies: list[float] = []
        self.errors: list[str] = []
        self.ended: list[str] = []
        self.until = float("inf")
        self.stopping = False

    async def ask(self, i: int) -> None:
        """One connection, which is opened again when the server ends it."""
        reader = writer = None
        while time.perf_counter() < self.until:
            if writer is None or reader is None:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except ConnectionRefusedError:
                    self.ended.append("refused")
                    if not self.stopping:
                        self.errors.append("refused")
                    return
            start = time.perf_counter()
            try:
                writer.write(request("POST", self.path, self.bodies[i % len(self.bodies)]))
                status, headers, content = await answer(reader)
            except (OSError, EOFError) as error:
                self.errors.append(f"no answer: {type(error).__name__}")
                self.ended.append("no answer")
                return
            now = time.perf_counter()
            i += 1
            if status != 200 or b"predictions" not in content:
                self.errors.append(f"{status}: {content[:200]!r}")
            elif start >= self.begin:
                self.latencies.append(now - start)
            if headers.get("connection") == "close":
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
        self.ended.append("done")


def main() -> None:
    """Start the server, load it, and print and store one line."""
    given = arguments()
    with tempfile.TemporaryDirectory() as folder:
        server, port = start(given, Path(folder))
        try:
            line = asyncio.run(measure(given, server, port))
        finally:
            if server.poll() is None:
                server.kill()
            server.communicate()
    text = json.dumps(line)
    sys.stdout.write(text + "\n")
    if not given.trial:
        with RESULTS.open("a") as file:
            file.write(text + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="of load; by default 600, and 10 before a stop")
    parser.add_argument("--clients", type=int, default=6, help="connections")
    parser.add_argument("--learner", default="characters")
    parser.add_argument("--workers", type=int, default=2, help="of the server")
    parser.add_argument(
        "--stop-in-the-middle", action="store_true", help="end with SIGTERM while requests are in flight"
    )
    parser.add_argument("--trial", action="store_true", help="store nothing")
    given = parser.parse_args()
    if given.seconds is None:
        given.seconds = 10.0 if given.stop_in_the_middle else 600.0
    return given


def start(given: argparse.Namespace, folder: Path) -> tuple[subprocess.Popen[str], int]:
    """The server's process and its port."""
    options = ["--port", "0", "--state", str(folder / "state"), "--learner", given.learner]
    command = [sys.executable, "-c", "from quickstudy.cli import main; main()", "serve", *options]
    server = subprocess.Popen([*command, "--workers", str(given.workers)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said = server.stderr.readline()
    found = re.search(r"http://127.0.0.1:(\d+)/", said)
    if found is None:
        raise SystemExit(said + server.stderr.read())
    return server, int(found.group(1))


async def measure(given: argparse.Namespace, server: subprocess.Popen[str], port: int) -> dict[str, Any]:
    """Teach a task, ask, and say what was met."""
    random = np.random.default_rng(0)
    classes = [random.uniform(0.15, 0.85, (5, 2)) for _ in range(WAY)]
    task = json.loads(await once(port, "POST", "/tasks", b'{"name": "load"}', "application/json"))["id"]
    for k, points in enumerate(classes):
        body = multipart([drawing(points, random) for _ in range(SHOT)], label=f"class {k}")
        await once(port, "POST", f"/tasks/{task}/examples", body)
    bodies = [multipart([drawing(classes[i % WAY], random)]) for i in range(50)]
    begin = time.perf_counter() + WARM_UP
    load = Load(port, f"/tasks/{task}/classify", bodies, begin)
    if not given.stop_in_the_middle:
        load.until = begin + given.seconds
    clients = [asyncio.create_task(load.ask(i * 7)) for i in range(given.clients)]
    await asyncio.sleep(WARM_UP)
    megabytes, used, own, done = (
        [resident(server.pid)],
        processor_time(server.pid),
        time.process_time(),
        len(load.latencies),
    )
    for _ in range(20):
        await asyncio.sleep(given.seconds / 20)
        megabytes.append(resident(server.pid))
    used, own = processor_time(server.pid) - used, time.process_time() - own
    done = max(1, len(load.latencies) - done)
    stop: dict[str, Any] = {}
    if given.stop_in_the_middle:
        load.stopping, before = True, len(load.latencies)
        server.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        stop = {"answered_after_the_signal": len(load.latencies) - before, "connections_ended": load.ended}
        stop["exit_status"] = await asyncio.to_thread(server.wait, 60)
    else:
        await asyncio.gather(*clients)
    milliseconds = np.array(load.latencies) * 1000
    return {
        "what": "stop" if stop else "load",
        "learner": given.learner,
        "way": WAY,
        "shot": SHOT,
        "seconds": given.seconds,
        "connections": given.clients,
        "classifications": len(load.latencies),
        "classifications_per_second": round(len(load.latencies) / (time.perf_counter() - begin), 1),
        "median_ms": round(float(np.median(milliseconds)), 1),
        "p99_ms": round(float(np.quantile(milliseconds, 0.99)), 1),
        "max_ms": round(float(milliseconds.max()), 1),
        "processor_ms_each": {"server": round(1000 * used / done, 2), "client": round(1000 * own / done, 2)},
        "errors": len(load.errors),
        "first_errors": load.errors[:3],
        "rss_megabytes": megabytes,
        **stop,
        "processors": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fastapi": fastapi.__version__,
        "uvicorn": uvicorn.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/serve_load.py", *sys.argv[1:]]),
    }


def drawing(points: np.ndarray, random: np.random.Generator) -> bytes:
    """A PNG with a line through five points, each a little moved."""
    image = Image.new("L", (SIDE, SIDE), 255)
    moved = (points + random.normal(0, 0.02, points.shape)) * SIDE
    ImageDraw.Draw(image).line([(x, y) for x, y in moved.tolist()], fill=0, width=6)
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def multipart(files: list[bytes], **fields: str) -> bytes:
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="drawing.png"\r\n\r\n'
    body = "".join(parts).encode() + b"".join(head.encode() + file + b"\r\n" for file in files)
    return body + f"--{BOUNDARY}--\r\n".encode()


def request(method: str, path: str, body: bytes, kind: str = f"multipart/form-data; boundary={BOUNDARY}") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, and content of a response with a Content-Length."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines[1:])}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]), headers, content


async def once(port: int, method: str, path: str, body: bytes, *kind: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(method, path, body, *kind))
    status, _, content = await answer(reader)
    writer.close()
    if status >= 300:
        raise SystemExit(f"{method} {path} was answered {status}: {content.decode()}")
    return content


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return round(int(found.group(1)) / 1000, 1) if found else 0.0


if __name__ == "__main__":
    main()
