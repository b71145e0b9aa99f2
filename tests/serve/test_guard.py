"""The guard: names, tokens, sizes and times, whatever the headers claim."""

import asyncio
import json

import pytest
from starlette.applications import Starlette

from quickstudy.serve import Limits, create_app
from quickstudy.serve.guard import LOOPBACK, Guard
from tests.serve.small_server import add, ask, client, drawing, learner_file, taught

TOKEN = "a token of 20 letters"


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    return learner_file(tmp_path_factory.mktemp("learner"))


@pytest.fixture(scope="module")
def secret(learner, tmp_path_factory):
    with client(learner, tmp_path_factory.mktemp("state"), token=TOKEN) as found:
        yield found


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "no token was sent; required is the header Authorization: Bearer TOKEN"),
        ({"Authorization": "Bearer "}, "no token was sent"),
        ({"Authorization": "Bearer wrong"}, "a wrong token was sent"),
        ({"Authorization": f"Bearer {TOKEN}x"}, "a wrong token was sent"),
        ({"Authorization": f"Basic {TOKEN}"}, "a wrong token was sent"),
        ({"Authorization": TOKEN}, "a wrong token was sent"),
        ({"Authorization": "Bearer é".encode()}, "a wrong token was sent"),
    ],
)
def test_without_the_token_there_is_nothing_but_health_page_and_docs(secret, headers, words):
    for method, path in (
        ("GET", "/tasks"),
        ("POST", "/tasks"),
        ("GET", "/nowhere"),
        ("DELETE", "/tasks/x"),
        ("PUT", "/x"),
    ):
        answer = secret.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert words in answer.json()["error"]
    assert secret.get("/health", headers=headers).status_code == 200
    assert secret.get("/docs", headers=headers).status_code == 200
    assert secret.get("/", headers=headers).status_code == 200


def test_with_the_token_everything_is_there(secret):
    secret.headers["Authorization"] = f"bearer {TOKEN}"
    task = taught(secret, "circle", "bar", shots=1)
    assert ask(secret, f"/tasks/{task}/classify", drawing("bar")).status_code == 200
    del secret.headers["Authorization"]


@pytest.mark.parametrize("token", ["", "  ", "a\nb", "schlüssel"])
def test_a_token_that_no_header_can_carry_is_refused(learner, tmp_path, token):
    with pytest.raises(ValueError, match="the token is empty or holds what a header cannot"):
        create_app(learner, state=tmp_path, token=token)


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "[::1]", "LOCALHOST"])
def test_names_of_loopback_are_served(secret, host):
    assert secret.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.", ""])
def test_other_names_are_refused(secret, host):
    for path in ("/health", "/", "/tasks"):
        answer = secret.get(path, headers={"Host": host})
        assert answer.status_code == 403
        assert "required is 127.0.0.1 or [::1] or localhost" in answer.json()["error"]


def test_pages_of_other_sites_change_nothing(learner, tmp_path):
    with client(learner, tmp_path) as server:
        for origin in ("https://evil.example", "null", "http://localhost:9999"):
            answer = server.post("/tasks", json={"name": "x"}, headers={"Origin": origin})
            assert answer.status_code == 403
            assert "asks for a change; only this server's own page may" in answer.json()["error"]
        own = {"Origin": "http://localhost"}
        task = server.post("/tasks", json={"name": "x"}, headers=own).json()["id"]
        answer = server.get("/tasks", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
        assert server.delete(f"/tasks/{task}", headers=own).status_code == 204


def test_every_answer_forbids_what_the_page_does_not_need(secret):
    for path in ("/health", "/", "/docs", "/tasks", "/nowhere"):
        headers = secret.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] in ("no-store", "no-cache")
    assert secret.get("/tasks").headers["cache-control"] == "no-store"


def test_a_body_in_pieces_without_a_length_is_counted(learner, tmp_path):
    with client(learner, tmp_path, limits=Limits(body_bytes=10_000)) as server:
        task = taught(server)
        for content in (b"x" * 10_001, (b"x" * 1000 for _ in range(11))):
            answer = server.post(f"/tasks/{task}/examples", content=content)
            assert answer.status_code == 413
            assert "the request is larger than 10,000 bytes" in answer.json()["error"]
        assert add(server, task, "circle", drawing("circle")).status_code == 201


class Wire:
    """What a connection receives, and what came back."""

    def __init__(self, *parts: bytes | float | None):
        self.parts, self.sent, self.taken = list(parts), [], 0

    async def receive(self):
        """The next piece: bytes, a pause of so many seconds, or None for a client that went away."""
        while self.parts and isinstance(pause := self.parts[0], float):
            self.parts.pop(0)
            await asyncio.sleep(pause)
        part = self.parts.pop(0) if self.parts else None
        if part is None:
            return {"type": "http.disconnect"}
        assert isinstance(part, bytes)
        self.taken += len(part)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts)}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def error(self) -> str:
        return json.loads(self.sent[1]["body"])["error"]


class Behind:
    """An application that keeps what it was sent, and answers when it may."""

    def __init__(self):
        self.bodies, self.may = [], asyncio.Event()

    async def __call__(self, scope, receive, send):
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        await self.may.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def guarded(behind, **limits):
    return Guard(behind, limits=Limits(**limits), token=None, hosts=LOOPBACK, open_paths=())


def scope(**headers: str):
    app = Starlette()
    app.state.closing = False
    given = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()
    ]
    return {"type": "http", "method": "POST", "path": "/", "headers": given, "app": app}


def test_the_application_sees_a_body_in_one_piece():
    async def run():
        behind, wire = Behind(), Wire(b"one ", b"body")
        behind.may.set()
        await guarded(behind)(scope(), wire.receive, wire.send)
        assert (behind.bodies, wire.status) == ([b"one body"], 200)

    asyncio.run(run())


@pytest.mark.parametrize("headers", [{}, {"content_length": "300"}])
def test_a_body_may_be_as_large_as_the_limit(headers):
    async def run():
        behind, wire = Behind(), Wire(*[b"x" * 100] * 3)
        behind.may.set()
        await guarded(behind, body_bytes=300)(scope(**headers), wire.receive, wire.send)
        assert (behind.bodies, wire.status) == ([b"x" * 300], 200)

    asyncio.run(run())


def test_a_length_that_is_false_helps_nobody():
    async def run():
        behind, wire = Behind(), Wire(*[b"x" * 100] * 5)
        await guarded(behind, body_bytes=300)(scope(content_length="10"), wire.receive, wire.send)
        assert (behind.bodies, wire.status, wire.taken) == ([], 413, 500)
        assert wire.headers[b"connection"] == b"close"
        endless = Wire(*[b"x" * 100] * 1000)
        await guarded(behind, body_bytes=300)(scope(content_length="99999"), endless.receive, endless.send)
        assert endless.status == 413
        assert endless.taken < 3000  # enough that the client sees the answer, and no more

    asyncio.run(run())


def test_a_client_that_waits_for_leave_is_refused_before_it_sends():
    async def run():
        wire = Wire(b"x" * 1000)
        headers = {"content_length": "1000", "expect": "100-continue"}
        await guarded(Behind(), body_bytes=300)(scope(**headers), wire.receive, wire.send)
        assert (wire.status, wire.taken) == (413, 0)

    asyncio.run(run())


def test_a_slow_client_is_408():
    async def run():
        behind, wire = Behind(), Wire(b"x", 0.2, b"y")
        await guarded(behind, body_seconds=0.05)(scope(), wire.receive, wire.send)
        assert (behind.bodies, wire.status) == ([], 408)
        assert wire.error == "the request did not arrive within 0.05 seconds: send it again"

    asyncio.run(run())


def test_a_client_that_goes_away_is_answered_nothing():
    async def run():
        behind, wire = Behind(), Wire(b"x", None)
        await guarded(behind)(scope(), wire.receive, wire.send)
        assert (behind.bodies, wire.sent) == ([], [])

    asyncio.run(run())


def test_too_many_requests_at_once_are_429_and_then_served_again():
    async def run():
        behind = Behind()
        guard, wires = guarded(behind, at_once=2), [Wire(b"x") for _ in range(4)]
        first = [asyncio.create_task(guard(scope(), wire.receive, wire.send)) for wire in wires[:2]]
        await asyncio.sleep(0.01)
        await guard(scope(), wires[2].receive, wires[2].send)
        assert wires[2].status == 429
        assert wires[2].headers[b"retry-after"] == b"1"
        assert "required are at most 2: try again" in wires[2].error
        behind.may.set()
        await asyncio.gather(*first)
        await guard(scope(), wires[3].receive, wires[3].send)
        assert [wire.status for wire in wires] == [200, 200, 429, 200]

    asyncio.run(run())


def test_strangers_take_no_room_from_those_who_have_the_token(monkeypatch):
    monkeypatch.setattr("quickstudy.serve.guard._SWALLOWING", 5.0)

    async def run():
        behind = Behind()
        behind.may.set()
        guard = Guard(behind, limits=Limits(at_once=8), token=TOKEN, hosts=LOOPBACK, open_paths={"/open"})
        never = [Wire(b"x", 9.0, b"y") for _ in range(20)]
        held = [
            asyncio.create_task(guard(scope(**extra), wire.receive, wire.send))
            for wire, extra in zip(never, ({}, {"host": "evil.example"}) * 10, strict=True)
        ]
        await asyncio.sleep(0.01)
        assert [wire.status for wire in never].count(None) == 2  # a quarter of 8 may still send; others are answered
        assert {wire.status for wire in never} == {None, 401, 403}
        known = Wire(b"x")
        await guard(scope(authorization=f"Bearer {TOKEN}"), known.receive, known.send)
        assert known.status == 200
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    asyncio.run(run())


def test_open_paths_read_no_body_and_have_room_of_their_own():
    async def run():
        behind = Behind()
        guard = Guard(behind, limits=Limits(at_once=4), token=TOKEN, hosts=LOOPBACK, open_paths={"/"})
        behind.may.set()
        wire = Wire(b"x" * 9, 9.0, b"y")
        await guard(scope(content_length="99"), wire.receive, wire.send)
        assert (wire.status, wire.taken, behind.bodies) == (200, 0, [b""])
        assert wire.headers[b"connection"] == b"close"  # its body would be taken for the next request
        plain = Wire()
        await guard(scope(), plain.receive, plain.send)
        assert b"connection" not in plain.headers
        behind.may.clear()
        first, second = Wire(), Wire()
        held = asyncio.create_task(guard(scope(), first.receive, first.send))
        await asyncio.sleep(0.01)
        await guard(scope(), second.receive, second.send)
        assert second.status == 429
        behind.may.set()
        await held
        assert first.status == 200

    asyncio.run(run())


def test_while_the_server_closes_answers_end_their_connection():
    async def run():
        behind, wire, where = Behind(), Wire(b"x"), scope()
        behind.may.set()
        where["app"].state.closing = True
        await guarded(behind)(where, wire.receive, wire.send)
        assert wire.headers[b"connection"] == b"close"

    asyncio.run(run())
