"""The HTTP interface: what each call answers, and what it refuses."""

import io
import json
import sqlite3

import pytest
from PIL import Image

import quickstudy as q
from quickstudy.serve import Limits, create_app
from quickstudy.serve.store import Store
from tests.serve.small_server import add, ask, client, drawing, encoded, learner_file, noise, taught
from tests.serve.test_pictures import png_bomb


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    return learner_file(tmp_path_factory.mktemp("learner"))


@pytest.fixture
def server(learner, tmp_path):
    limits = Limits(tasks=3, classes=3, examples_per_class=4, examples_per_task=9, files=5, body_bytes=100_000)
    with client(learner, tmp_path / "state", limits=limits) as found:
        yield found


@pytest.fixture(scope="module")
def shared(learner, tmp_path_factory):
    """A server for tests that only see what is refused."""
    limits = Limits(tasks=1000, files=5, body_bytes=100_000)
    with client(learner, tmp_path_factory.mktemp("state"), limits=limits) as found:
        yield found


def refused(answer, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    for word in words:
        assert word in answer.json()["error"]


def test_health_says_what_is_served(server):
    assert server.get("/health").json() == {
        "status": "ok",
        "version": q.__version__,
        "learner": "small.safetensors",
        "tasks": 0,
        "limits": {
            "body_bytes": 100_000,
            "files": 5,
            "pixels": 4_000_000,
            "tasks": 3,
            "classes": 3,
            "examples_per_class": 4,
            "examples_per_task": 9,
        },
    }


@pytest.mark.parametrize("path", ["/", "/health", "/app.js", "/docs", "/docs.css", "/openapi.json"])
def test_what_is_open_answers_head_as_well(shared, path):
    answer = shared.head(path)
    assert answer.status_code == 200
    assert answer.headers["content-length"] == shared.get(path).headers["content-length"]


def test_a_state_that_is_gone_is_503_and_takes_nothing(server, tmp_path):
    task = taught(server, "circle")
    path = tmp_path / "state" / "tasks.sqlite"
    path.rename(path.with_suffix(".moved"))
    for put in (lambda: None, lambda: path.write_bytes(b"another file")):
        put()
        for answer in (
            server.get("/health"),
            server.post("/tasks", json={"name": "x"}),
            add(server, task, "circle", drawing("circle")),
        ):
            refused(answer, 503, "is gone, or another file is in its place", "start the server anew")
    path.with_suffix(".moved").replace(path)
    assert server.get("/health").status_code == 200
    assert add(server, task, "circle", drawing("circle")).status_code == 201


def test_a_task_is_made_listed_and_deleted(server):
    made = server.post("/tasks", json={"name": "  shapes "})
    assert made.status_code == 201
    assert made.json() == {"id": made.json()["id"], "name": "shapes", "classes": []}
    task = made.json()["id"]
    assert len(task) == 22
    add(server, task, "circle", drawing("circle"))
    (listed,) = server.get("/tasks").json()
    assert listed == server.get(f"/tasks/{task}").json()
    assert listed["classes"] == [{"name": "circle", "examples": 1}]
    assert listed["created"].endswith("+00:00")
    assert server.delete(f"/tasks/{task}").status_code == 204
    assert server.get("/tasks").json() == []
    refused(server.get(f"/tasks/{task}"), 404, "there is no task", "GET /tasks lists them")
    refused(ask(server, f"/tasks/{task}/classify", drawing("bar")), 404)


def test_classes_are_added_renamed_and_deleted(server):
    task = taught(server, "circle")
    path = f"/tasks/{task}/classes"
    made = server.post(path, json={"name": "cross / plus?"})
    assert (made.status_code, made.json()) == (201, {"name": "cross / plus?", "examples": 0})
    refused(server.post(path, json={"name": "circle"}), 409, "class 'circle' is there already")
    renamed = server.patch(f"{path}/cross%20%2F%20plus%3F", json={"name": "é"})
    assert renamed.json() == {"name": "é", "examples": 0}
    refused(server.patch(f"{path}/circle", json={"name": "e\u0301"}), 409, "is there already")  # the same, decomposed
    refused(server.patch(f"{path}/no", json={"name": "x"}), 404, "has no class 'no'")
    assert server.delete(f"{path}/é").status_code == 204
    refused(server.delete(f"{path}/é"), 404, "has no class 'é'")
    assert server.get(f"/tasks/{task}").json()["classes"] == [{"name": "circle", "examples": 2}]


def test_examples_are_added_shown_and_deleted(server):
    task = taught(server)
    added = add(server, task, "circle", drawing("circle", 0), drawing("circle", 1, size=300, form="JPEG"))
    assert added.status_code == 201
    first, second = added.json()["examples"]
    assert added.json()["classes"] == [{"name": "circle", "examples": 2}]
    assert server.get(f"/tasks/{task}/examples").json() == [first, second]
    assert first["label"] == "circle"
    shown = server.get(f"/tasks/{task}/examples/{second['id']}.png")
    assert shown.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(shown.content)).size == (96, 96)
    assert server.delete(f"/tasks/{task}/examples/{first['id']}").status_code == 204
    assert server.get(f"/tasks/{task}/examples").json() == [second]
    refused(server.delete(f"/tasks/{task}/examples/{first['id']}"), 404, "has no example")
    refused(server.get(f"/tasks/{task}/examples/{first['id']}.png"), 404, "has no example")


def test_it_learns_and_classifies(server):
    task = taught(server, "circle", "cross", "bar", shots=3)
    answer = ask(server, f"/tasks/{task}/classify", *(drawing(kind, 4) for kind in ("bar", "circle", "cross")))
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    assert [each["ranking"][0]["label"] for each in found] == ["bar", "circle", "cross"]
    for each in found:
        assert list(each) == ["label", "unknown", "unknown_score", "ranking", "set"]
        probabilities = [ranked["probability"] for ranked in each["ranking"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert {ranked["label"] for ranked in each["ranking"]} == {"circle", "cross", "bar"}
        assert each["label"] == (None if each["unknown"] else each["ranking"][0]["label"])
        assert set(each["set"]) <= {"circle", "cross", "bar"}


def test_a_class_is_known_as_soon_as_it_is_there_and_forgotten_as_soon_as_it_is_gone(server):
    task = taught(server, "circle", "cross")
    path = f"/tasks/{task}/classify"

    def labels() -> set[str]:
        return {each["label"] for each in ask(server, path, drawing("bar", 3)).json()["predictions"][0]["ranking"]}

    assert labels() == {"circle", "cross"}
    (example,) = add(server, task, "bar", drawing("bar")).json()["examples"]
    assert ask(server, path, drawing("bar", 1)).json()["predictions"][0]["ranking"][0]["label"] == "bar"
    server.post(f"/tasks/{task}/classes", json={"name": "empty"})
    server.patch(f"/tasks/{task}/classes/circle", json={"name": "ring"})
    assert labels() == {"ring", "cross", "bar"}
    server.delete(f"/tasks/{task}/examples/{example['id']}")
    assert labels() == {"ring", "cross"}
    server.delete(f"/tasks/{task}/classes/ring")
    refused(ask(server, path, drawing("bar")), 409, "examples of 1 class; required are two")


def test_without_two_classes_there_is_nothing_to_classify(server):
    task = taught(server)
    refused(ask(server, f"/tasks/{task}/classify", drawing("bar")), 409, "examples of 0 classes; required are two")
    refused(server.get(f"/tasks/{task}/model"), 409, "required are two to tell apart: add examples")


def test_what_too_few_examples_cannot_promise_is_answered_with_every_class(server):
    task = taught(server, "circle", "cross", shots=1)
    (found,) = ask(server, f"/tasks/{task}/classify?coverage=0.99", noise()).json()["predictions"]
    assert set(found["set"]) == {"circle", "cross"}
    assert (found["unknown"], found["unknown_score"]) == (False, None)


def test_the_map_holds_every_example_and_the_queries(server):
    task = taught(server)
    assert server.get(f"/tasks/{task}/map").json() == {"points": []}
    assert ask(server, f"/tasks/{task}/map", noise()).json() == {"points": [], "queries": [{"x": 0, "y": 0}]}
    add(server, task, "circle", drawing("circle"))
    (only,) = server.get(f"/tasks/{task}/map").json()["points"]
    assert (only["label"], only["x"], only["y"]) == ("circle", 0, 0)
    add(server, task, "circle", drawing("circle", 3), drawing("circle", 4))  # one class is enough
    assert len({point["x"] for point in server.get(f"/tasks/{task}/map").json()["points"]}) == 3
    add(server, task, "bar", drawing("bar"), drawing("bar", 2))
    points = server.get(f"/tasks/{task}/map").json()["points"]
    assert [point["example"] for point in points] == [
        each["id"] for each in server.get(f"/tasks/{task}/examples").json()
    ]
    assert max(abs(point[axis]) for point in points for axis in "xy") == 1
    found = ask(server, f"/tasks/{task}/map", drawing("circle"), noise()).json()
    assert found["points"] == points
    assert len(found["queries"]) == 2
    same = [points[0][axis] for axis in "xy"]
    assert [found["queries"][0][axis] for axis in "xy"] == pytest.approx(same, abs=1e-4)
    assert all(-1 <= place[axis] <= 1 for place in found["queries"] for axis in "xy")


def test_the_model_is_a_file_that_answers_the_same(server, tmp_path):
    task = server.post("/tasks", json={"name": '../a "b"\u2044c'}).json()["id"]
    for kind in ("circle", "bar"):
        add(server, task, kind, drawing(kind), drawing(kind, 1))
    answer = server.get(f"/tasks/{task}/model")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="a-b-c.safetensors"'
    (tmp_path / "model").write_bytes(answer.content)
    model = q.load_model(tmp_path / "model")
    queries = [drawing("circle", 4), drawing("bar", 4)]
    found = ask(server, f"/tasks/{task}/classify", *queries).json()["predictions"]
    assert list(model.predict(queries)) == [each["ranking"][0]["label"] for each in found]


def test_the_state_survives_and_another_reading_of_images_is_refused(learner, tmp_path):
    with client(learner, tmp_path / "state") as server:
        task = taught(server, "circle", "cross")
        before = ask(server, f"/tasks/{task}/classify", drawing("cross", 4)).json()
    with client(learner, tmp_path / "state") as server:
        assert ask(server, f"/tasks/{task}/classify", drawing("cross", 4)).json() == before
    q.save(q.ProtoNet(q.Conv4(width=4, image_size=20)), tmp_path / "other")
    with pytest.raises(ValueError, match=r"reads images of .*20.* and the state .* was begun with .*28"):
        create_app(tmp_path / "other", state=tmp_path / "state")


def test_a_state_remembers_in_which_way_its_images_were_read(learner, tmp_path, monkeypatch):
    store = Store(tmp_path, Limits())
    store.remember("reader", '{"channels": 1, "size": 28}')  # from before the way had a number
    store.close()
    with client(learner, tmp_path):
        pass
    monkeypatch.setattr("quickstudy.serve.app.READING", 2)
    with pytest.raises(ValueError, match=r"'reading': 2.* was begun with .*'reading': 1.*a version of quickstudy"):
        create_app(learner, state=tmp_path)


def test_a_task_that_is_no_longer_kept_is_learnt_again(learner, tmp_path):
    with client(learner, tmp_path / "state") as server:
        tasks = [taught(server, "circle", "cross", shots=1) for _ in range(34)]
        for task in (*tasks, tasks[0]):
            assert ask(server, f"/tasks/{task}/classify", drawing("cross", 1)).status_code == 200


@pytest.mark.parametrize(
    ("images", "status", "words"),
    [
        ([b""], 415, "file 1 of 1 is empty"),
        ([drawing("bar"), b"hello"], 415, "file 2 of 2 begins with b'hello'"),
        ([drawing("bar")[:60]], 422, "cannot be read as an image"),
        ([png_bomb(9_000)], 413, "pixels; required are at most 4,000,000"),
        ([drawing("bar")] * 6, 422, "6 files were sent; required are at most 5"),
        ([encoded(Image.effect_noise((400, 400), 90))], 413, "the request is larger than 100,000 bytes"),
    ],
)
@pytest.mark.parametrize("call", ["examples", "classify", "map"])
def test_images_that_cannot_be_taken(shared, call, images, status, words):
    task = taught(shared, "circle", "cross", shots=1)
    path = f"/tasks/{task}/{call}"
    answer = add(shared, task, "circle", *images) if call == "examples" else ask(shared, path, *images)
    refused(answer, status, words)
    assert len(shared.get(f"/tasks/{task}/examples").json()) == 2


def test_limits_of_the_store_are_409(server):
    task = taught(server, "circle", "cross", "bar", shots=3)
    refused(add(server, task, "circle", drawing("circle")), 409, "required are at most 9")
    refused(add(server, task, "bar", *[drawing("bar")] * 2), 409, "class 'bar' has 3 examples and 2 more were sent")
    refused(add(server, task, "new", drawing("bar")), 409, "3 classes, which is the limit")
    for _ in range(2):
        server.post("/tasks", json={"name": "x"})
    refused(server.post("/tasks", json={"name": "x"}), 409, "there are 3 tasks, which is the limit: delete one")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "which is empty"),
        ("   ", "which is empty"),
        ("a\nb", "which holds U+000A; required are 1 to 80 printable"),
        ("a\x00b", "which holds U+0000"),
        ("\u202ereversed", "which holds U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        ("soft\u00adhyphen", "which holds U+00AD (SOFT HYPHEN)"),
        ("x" * 81, "which has 81 characters"),
        (".", "no address can hold it"),
        ("..", "no address can hold it"),
        ("\ud800", "name"),
        ("\u200d", "which holds U+200D (ZERO WIDTH JOINER)"),
        ("\u200ca", "which holds U+200C (ZERO WIDTH NON-JOINER)"),
        ("a\u200d", "which holds U+200D"),
        ("a\u200c\u200cb", "which holds U+200C"),
        ("\u2800", "of which nothing is to be seen, as of U+2800 (BRAILLE PATTERN BLANK)"),
        ("\u3164 \u115f\ufe0f", "of which nothing is to be seen, as of U+3164 (HANGUL FILLER)"),
        ("\u2800\u200d\u2800", "of which nothing is to be seen"),
    ],
    ids=lambda name: ascii(name[:9]),
)
def test_names_are_printable_and_short(shared, name, words):
    body = json.dumps({"name": name})
    kind = {"Content-Type": "application/json"}
    refused(shared.post("/tasks", content=body, headers=kind), 422, words)
    task = taught(shared)
    refused(shared.post(f"/tasks/{task}/classes", content=body, headers=kind), 422, words)
    if name != "\ud800":
        refused(add(shared, task, name, drawing("bar")), 422)


@pytest.mark.parametrize(
    "name",
    ["می\u200cخواهم", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "❤\ufe0f\u200d\U0001f525", "a\u2800b", "क्\u200dष"],
    ids=ascii,
)
def test_names_of_any_script_are_taken(shared, name):
    task = taught(shared)
    assert add(shared, task, name, drawing("bar")).json()["classes"] == [{"name": name, "examples": 1}]
    assert shared.delete(f"/tasks/{task}/classes/{name}").status_code == 204


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (("GET", "/nowhere", {}), 404, "there is nothing at '/nowhere'; /docs lists all calls"),
        (("GET", "/tasks/", {}), 404, "there is nothing at"),
        (("GET", "/../../etc/passwd", {}), 404, "there is nothing at"),
        (("GET", "/%2e%2e/%2e%2e/etc/passwd", {}), 404, "there is nothing at"),
        (("PUT", "/tasks", {}), 405, "'/tasks' does not take PUT"),
        (("OPTIONS", "/tasks", {}), 405, "does not take OPTIONS"),
        (("POST", "/tasks", {}), 422, "body: Field required"),
        (("POST", "/tasks", {"content": b"{", "headers": {"Content-Type": "application/json"}}), 422, "JSON decode"),
        (("POST", "/tasks", {"content": b"[" * 90_000, "headers": {"Content-Type": "application/json"}}), 400, "body"),
        (
            ("POST", "/tasks", {"json": {"name": 7}}),
            422,
            "body.name: Input should be a valid string, and '7' was given",
        ),
        (("POST", "/tasks", {"json": {}}), 422, "body.name: Field required"),
        (("POST", "/tasks", {"content": b'{"name": "x"}', "headers": {"Content-Type": "text/plain"}}), 422, "body"),
        (("POST", "/tasks/TASK/examples", {"data": {"label": "x"}}), 422, "body.files: Field required"),
        (("POST", "/tasks/TASK/examples", {"files": {"files": noise()}}), 422, "body.label: Field required"),
        (("POST", "/tasks/TASK/classify", {"data": {"files": "text"}}), 422, "body.files"),
        (
            ("POST", "/tasks/TASK/classify", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
            400,
            "b",
        ),
        (("POST", "/tasks/TASK/classify?coverage=1", {"files": {"files": noise()}}), 422, "query.coverage: "),
        (("POST", "/tasks/TASK/classify?coverage=nan", {"files": {"files": noise()}}), 422, "query.coverage: "),
        (("POST", "/tasks/TASK/classify?false_alarms=no", {"files": {"files": noise()}}), 422, "query.false_alarms: "),
    ],
    ids=lambda value: " ".join(value[:2])[:40] if isinstance(value, tuple) else "",
)
def test_requests_that_make_no_sense(shared, request_, status, words):
    method, path, options = request_
    answer = shared.request(method, path.replace("TASK", taught(shared, "circle", "cross", shots=1)), **options)
    refused(answer, status, words)
    if status == 405:
        assert "POST" in answer.headers["allow"]


def test_an_error_of_the_server_is_json_too(server, monkeypatch):
    monkeypatch.setattr("quickstudy.serve.store.Store.tasks", lambda self: 1 / 0)
    answer = server.get("/tasks")
    refused(answer, 500, "an error of the server")
    assert "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SQLITE_FULL", "free some space on its disk"),
        ("SQLITE_IOERR_WRITE", "free some space on its disk"),
        ("SQLITE_BUSY", "another program holds it: end that"),
        ("SQLITE_LOCKED_SHAREDCACHE", "another program holds it: end that"),
        ("SQLITE_CORRUPT", "it is damaged: start the server with a copy"),
        ("SQLITE_NOTADB", "it is damaged: start the server with a copy"),
        ("SQLITE_READONLY_DBMOVED", "the right to write"),
        ("SQLITE_CANTOPEN", "the right to write"),
        ("SQLITE_ERROR", "see that its disk is in order"),
        (None, "see that its disk is in order"),
    ],
)
def test_a_state_that_cannot_be_used_is_507_and_says_what_to_do(shared, monkeypatch, name, words):
    def broken(*_):
        error = sqlite3.OperationalError("what SQLite says")
        if name is not None:
            error.sqlite_errorname = name
        raise error

    monkeypatch.setattr("quickstudy.serve.store.Store.create", broken)
    answer = shared.post("/tasks", json={"name": "x"})
    refused(answer, 507, "could not be read or written (what SQLite says); nothing was changed: ", words)


def test_learners_that_read_no_images_are_refused(tmp_path):
    for name in ("tables", "texts"):
        with pytest.raises(ValueError, match=f"the learner reads {name}, and the server takes images; .*characters"):
            create_app(name, state=tmp_path)
    with pytest.raises(ValueError, match="'nobody'; required is a Learner, a run folder, a learner file, or one of"):
        create_app("nobody", state=tmp_path)


def test_openapi_describes_every_call_and_the_docs_show_it(shared):
    described = shared.get("/openapi.json").json()
    calls = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    task = "/tasks/{task}"
    assert calls == {
        *(("GET", path) for path in ("/health", "/tasks", task, f"{task}/examples", f"{task}/map", f"{task}/model")),
        ("GET", f"{task}/examples/{{example}}.png"),
        *(
            ("POST", path)
            for path in ("/tasks", f"{task}/classes", f"{task}/examples", f"{task}/classify", f"{task}/map")
        ),
        *(("DELETE", path) for path in (task, f"{task}/classes/{{name}}", f"{task}/examples/{{example}}")),
        ("PATCH", f"{task}/classes/{{name}}"),
    }
    for methods in described["paths"].values():
        for call in methods.values():
            assert call["description"]
            assert {"503", "507"} <= set(call["responses"])
            for status, answer in call["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
    page = shared.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert all(path in page.text for _, path in calls)
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    assert shared.get("/docs.css").headers["content-type"] == "text/css; charset=utf-8"


def test_the_page_is_served_from_memory_and_nothing_else_is(shared):
    page = shared.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == shared.get("/index.html").content
    assert shared.get("/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert shared.get("/style.css").headers["content-type"] == "text/css; charset=utf-8"
    for path in ("/engine.py", "/page/app.js", "/..%2Fengine.py", "/app.js/../engine.py", "/%00", "/app.js%00.html"):
        assert shared.get(path).status_code == 404


def test_the_shipped_learner_says_of_a_drawing_what_its_model_file_says(tmp_path):
    with client("characters", tmp_path / "state") as server:
        task = taught(server, "circle", "cross", "bar")
        queries = [drawing(kind, 4) for kind in ("bar", "circle", "cross")]
        found = ask(server, f"/tasks/{task}/classify", *queries).json()["predictions"]
        assert [each["ranking"][0]["label"] for each in found] == ["bar", "circle", "cross"]
        (tmp_path / "model").write_bytes(server.get(f"/tasks/{task}/model").content)
        assert server.get("/health").json()["learner"] == "characters"
    model = q.load_model(tmp_path / "model")
    assert isinstance(model, q.FewShotClassifier)
    assert model.classes_.tolist() == ["bar", "circle", "cross"]
    for row, each in zip(model.predict_proba(queries), found, strict=True):
        expected = dict(zip(["bar", "circle", "cross"], row.tolist(), strict=True))
        assert {one["label"]: one["probability"] for one in each["ranking"]} == pytest.approx(expected, abs=1e-4)
