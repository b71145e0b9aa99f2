"""The process: addresses, a kill -9, a stop in the middle."""

import http.client
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from typing import Any

import pytest
import typer
import uvicorn
from typer.testing import CliRunner

from quickstudy.commands_serve import serve as command
from quickstudy.serve import serve
from quickstudy.serve.running import _Server, listen, names
from tests.serve.small_server import Running, drawing, learner_file

BOUNDARY = "between"


def multipart(*files: bytes, **fields: str) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()
    ]
    for file in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
        parts.append(head.encode() + file + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def call(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    kind = "application/json" if body and body[:1] == b"{" else f"multipart/form-data; boundary={BOUNDARY}"
    connection.request(method, path, body, {"Content-Type": kind, **headers} if body else headers)
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, json.loads(content) if content else None


def connect(server: Running) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20))


def once(server: Running, method: str, path: str, body: bytes | None = None) -> Any:
    with connect(server) as connection:
        return call(connection, method, path, body)[1]


def test_a_kill_loses_nothing_acknowledged_and_a_stop_answers_everything_accepted(tmp_path):
    state = ("--learner", learner_file(tmp_path), "--state", tmp_path / "state")
    acknowledged: list[str] = []
    with Running(*state) as server:
        assert server.said == f"quickstudy serves {state[1]} at {server.url}/\n"
        task = once(server, "POST", "/tasks", b'{"name": "shapes"}')["id"]

        def teach(label: str) -> None:
            with suppress(OSError, http.client.HTTPException), connect(server) as connection:  # until it is killed
                for i in range(12):
                    body = multipart(drawing(label, i), drawing(label, i + 1), label=label)
                    status, added = call(connection, "POST", f"/tasks/{task}/examples", body)
                    assert status == 201
                    acknowledged.extend(each["id"] for each in added["examples"])

        teachers = [threading.Thread(target=teach, args=(label,)) for label in ("circle", "cross", "bar")]
        for teacher in teachers:
            teacher.start()
        while len(acknowledged) < 24:
            time.sleep(0.002)
        server.process.kill()
        for teacher in teachers:
            teacher.join()
        assert server.process.wait(10) == -signal.SIGKILL
    with Running(*state) as server:
        there = [each["id"] for each in once(server, "GET", f"/tasks/{task}/examples")]
        assert set(acknowledged) <= set(there)
        assert len(there) % 2 == 0  # the whole of a request, or nothing of it
        bodies_are_counted_whatever_their_length_says(server)
        answered, refused = stop_while_asking(server, f"/tasks/{task}/classify", multipart(drawing("bar", 3)))
        assert answered >= 20
        assert refused == ["ConnectionRefusedError"] * 4
        assert server.process.wait(20) == 0
        assert server.end() == ""


def bodies_are_counted_whatever_their_length_says(server: Running) -> None:
    with connect(server) as connection:
        pieces = (b"x" * 100_000 for _ in range(80))
        connection.request("POST", "/tasks", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert b"the request is larger than 5,000,000 bytes" in answer.read()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:  # claims less than it sends
        raw.sendall(b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}" + b"x" * 100)
        assert raw.recv(65536).startswith(b"HTTP/1.1 422 ")


def stop_while_asking(server: Running, path: str, body: bytes) -> tuple[int, list[str]]:
    """Four clients ask without a pause while SIGTERM comes: how many were answered, and how each client ended."""
    answered, ends = [0] * 4, [""] * 4

    def asking(i: int) -> None:
        with connect(server) as connection:
            try:
                while True:
                    assert call(connection, "POST", path, body)[0] == 200
                    answered[i] += 1
            except OSError as error:
                ends[i] = type(error).__name__

    clients = [threading.Thread(target=asking, args=(i,)) for i in range(4)]
    for client in clients:
        client.start()
    while sum(answered) < 20:
        time.sleep(0.002)
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    return sum(answered), ends


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_can_reach_needs_a_token(host):
    with pytest.raises(ValueError, match=r"can be reached from other machines; required is a token.*leave --host out"):
        listen(host, 0, None)


def test_an_address_that_others_can_reach_is_listened_on_with_a_token():
    with listen("0.0.0.0", 0, "token") as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.9"])
def test_loopback_needs_no_token(host):
    with listen(host, 0, None) as listener:
        assert listener.getsockname()[1] > 0


def test_a_port_in_use_is_refused():
    with listen("127.0.0.1", 0, None) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"127.0.0.1 port {port} cannot be listened on .*in use.*choose another"):
            listen("127.0.0.1", port, None)


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"--host no.such.host.invalid is no address of this machine"):
        listen("no.such.host.invalid", 0, None)
    with pytest.raises(ValueError, match=r"192.0.2.1 port 0 cannot be listened on"):
        listen("192.0.2.1", 0, "token")  # an address for documentation, of no machine


@pytest.mark.parametrize(
    ("address", "allowed", "shown", "hosts"),
    [
        ("127.0.0.1", [], "127.0.0.1", {"localhost", "127.0.0.1", "[::1]"}),
        ("127.0.0.9", ["A.example"], "127.0.0.9", {"localhost", "127.0.0.1", "[::1]", "127.0.0.9", "a.example"}),
        ("0.0.0.0", [], "127.0.0.1", None),
        ("::", [], "[::1]", None),
        ("0.0.0.0", ["a.example"], "127.0.0.1", {"localhost", "127.0.0.1", "[::1]", "a.example"}),
        ("192.0.2.1", ["a.example"], "192.0.2.1", {"localhost", "127.0.0.1", "[::1]", "192.0.2.1", "a.example"}),
    ],
)
def test_an_address_has_a_name_that_can_be_called_and_names_that_may(address, allowed, shown, hosts):
    assert names(address, allowed) == (shown, hosts)


def test_a_second_interrupt_ends_the_process_at_once(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    for first in (signal.SIGINT, signal.SIGTERM):
        server = _Server(uvicorn.Config(lambda: None), lambda: None)
        server.handle_exit(first, None)
        server.handle_exit(signal.SIGTERM, None)
        assert (server.should_exit, ended) == (True, [])
        server.handle_exit(signal.SIGINT, None)
        assert ended.pop() == 130


def test_the_command_hands_on_what_it_is_told(monkeypatch, tmp_path, capsys):
    given = {}
    monkeypatch.setattr("quickstudy.serve.serve", lambda learner, **options: given.update(options, learner=learner))
    app = typer.Typer()
    app.command()(command)
    arguments = ["--state", str(tmp_path), "--port", "0", "--allow-host", "a.example", "--max-tasks", "7"]
    done = CliRunner().invoke(app, arguments, env={"QUICKSTUDY_TOKEN": "from the environment"})
    assert done.exit_code == 0, done.output
    assert (given["learner"], given["state"], given["host"], given["port"]) == ("characters", tmp_path, "127.0.0.1", 0)
    assert (given["token"], given["allow_hosts"]) == ("from the environment", ["a.example"])
    assert (given["limits"].tasks, given["limits"].body_bytes, given["workers"]) == (7, 5_000_000, 2)
    given["started"]("http://127.0.0.1:1/")
    CliRunner().invoke(app, ["--host", "0.0.0.0"])
    given["started"]("http://127.0.0.1:1/")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "quickstudy serves characters at http://127.0.0.1:1/",
        "quickstudy serves characters at http://127.0.0.1:1/ and all other addresses of this machine",
    ]
    for wrong, words in ((["--workers", "0"], "--workers 0"), (["--max-tasks", "0"], "tasks=0; required is a number")):
        with pytest.raises(ValueError, match=words):
            raise CliRunner().invoke(app, wrong).exception  # pyright: ignore


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    find = importlib.util.find_spec
    kept = {name: module for name, module in sys.modules.items() if name.startswith("quickstudy.serve")}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else find(name))
    app = typer.Typer()
    app.command()(command)
    with pytest.raises(ValueError, match=r"needs fastapi, which is not installed: pip install 'quickstudy\[serve\]'"):
        raise CliRunner().invoke(app, []).exception  # pyright: ignore


def test_the_address_is_refused_before_the_learner_is_opened(tmp_path):
    with pytest.raises(ValueError, match="required is a token"):
        serve("no such learner", state=tmp_path / "state", host="0.0.0.0")
    assert not (tmp_path / "state").exists()
