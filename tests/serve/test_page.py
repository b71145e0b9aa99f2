"""The web page in a real browser, against the real server: teach, try, mend, and everything that goes wrong."""

import io
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from PIL import Image, ImageDraw

PAGE = Path(__file__).parents[2] / "src" / "quickstudy" / "serve" / "page"
CHROMIUM = "/usr/bin/chromium"
SIDE = 105  # units of a drawing
Sign = Sequence[Sequence[tuple[float, float]]]  # strokes of points in these units
RING = [[(52 + 32 * math.cos(a / 5 * math.pi), 52 + 32 * math.sin(a / 5 * math.pi)) for a in range(11)]]
COMB = [[(20, 25), (85, 25)], [(25, 25), (25, 80)], [(52, 25), (52, 80)], [(80, 25), (80, 80)]]
BOLT = [[(70, 15), (30, 52)], [(30, 52), (70, 56)], [(70, 56), (32, 92)]]
STAR = [[(20, 20), (85, 85)], [(85, 20), (20, 85)], [(52, 8), (52, 97)], [(8, 52), (97, 52)]]


def missing(reason: str) -> NoReturn:
    """Skip at home, fail where everything is meant to be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        missing(f"{CHROMIUM} is not there: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright is not installed: pip install playwright")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def running(state: Path, **settings: Any) -> Iterator[str]:
    """The server in a thread, on a free port; its address."""
    import uvicorn

    from quickstudy.serve import create_app

    app = create_app("characters", state=state, workers=1, **settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("state")) as url:
        yield url


class Visitor:
    """A person at the page, in a task of their own; notes what the console and the network say."""

    def __init__(self, browser: Any, url: str, *, new_task: bool = True, **settings: Any):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        self.context.set_default_timeout(20_000)
        self.page, self.url = self.context.new_page(), url
        self.console: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.choosers: list[Any] = []
        self.page.on("filechooser", lambda chooser: self.choosers.append(chooser))
        self.page.goto(url)
        if new_task:
            self.page.locator("main[aria-busy=false]").wait_for()
            self.new_task("signs")

    def new_task(self, name: str) -> str:
        """Create a task and open it; its id."""
        before = self.page.evaluate("location.hash")
        self.page.get_by_role("button", name="New task").click()
        self.page.locator("#dialog-field").fill(name)
        self.page.keyboard.press("Enter")
        self.page.wait_for_function("before => location.hash !== before", arg=before)
        self.page.locator("main[aria-busy=false]").wait_for()
        return self.page.locator("#task").input_value()

    def draw(self, pad: str, sign: Sign, rng: random.Random) -> None:
        """One drawing of a sign by mouse, shifted, scaled and with an unsteady hand."""
        canvas = self.page.locator(f"#{pad}-pad canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        unit, dx, dy, scale = box["width"] / SIDE, rng.uniform(-5, 5), rng.uniform(-5, 5), rng.uniform(0.9, 1.04)
        at = lambda v, shift: 52 + (v - 52) * scale + shift + rng.uniform(-2, 2)  # noqa: E731
        for stroke in sign:
            points = [(box["x"] + at(x, dx) * unit, box["y"] + at(y, dy) * unit) for x, y in stroke]
            self.page.mouse.move(*points[0])
            self.page.mouse.down()
            for x, y in points[1:]:
                self.page.mouse.move(x, y)
            self.page.mouse.up()

    def teach(self, sign: Sign, name: str, rng: random.Random) -> None:
        self.draw("teach", sign, rng)
        self.page.get_by_label("What is it?").fill(name)
        self.page.locator("#teach-add").click()
        self.page.locator("#teach-pad.blank").wait_for()
        self.page.locator("#teach-add:enabled").wait_for()

    def answer(self, sign: Sign, rng: random.Random) -> str:
        """What the page says of a new drawing, once it has said it of the whole drawing."""
        if not self.page.locator("#try-pad .clear").is_disabled():
            self.page.locator("#try-pad .clear").click()
        self.draw("try", sign, rng)
        return self.settled()

    def settled(self) -> str:
        self.page.locator("#result[aria-busy=false] .answer strong").wait_for()
        return self.page.locator("#result .answer strong").inner_text()

    def choose(self, pad: str | None, *files: tuple[str, bytes]) -> None:
        """Choose image files for a pad; by keyboard, if the button has the focus."""
        if pad:
            self.page.locator(f"#{pad}-pad .choose").click()
        else:
            self.page.keyboard.press("Enter")
        until(self.page, lambda: self.choosers)
        chooser = self.choosers.pop()
        chooser.set_files([{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files])
        label = "Drawing area, 1 image." if len(files) == 1 else f"Drawing area, {len(files)} images."
        self.page.locator(f"canvas[aria-label^='{label}']").first.wait_for()

    def drop(self, where: str, data: bytes) -> None:
        """Drop an image file on an element."""
        build = """bytes => { const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            return transfer; }"""
        transfer = self.page.evaluate_handle(build, list(data))
        self.page.dispatch_event(where, "drop", {"dataTransfer": transfer})

    def counts(self) -> dict[str, str]:
        names = self.page.locator(".class-name").all_inner_texts()
        return dict(zip(names, self.page.locator(".count").all_inner_texts(), strict=True))


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visitor]]:
    """Opens the page; at the end nothing may have left the server, nor anything be in the console."""
    with ExitStack() as stack:

        def open_page(url: str, *, allowed: str = "$^", **settings: Any) -> Visitor:
            visitor = Visitor(browser, url, **settings)
            stack.callback(visitor.context.close)
            stack.callback(check, visitor, allowed)
            return visitor

        yield open_page


def check(visitor: Visitor, allowed: str) -> None:
    assert [line for line in visitor.console if not re.search(allowed, line)] == []
    outside = [url for url in visitor.requests if not url.startswith((visitor.url, f"blob:{visitor.url}", "data:"))]
    assert outside == []


def picture(sign: Sign, side: int = SIDE) -> bytes:
    """A sign as a PNG file."""
    image = Image.new("L", (side, side), 255)
    for stroke in sign:
        ImageDraw.Draw(image).line([(x * side / SIDE, y * side / SIDE) for x, y in stroke], 0, max(1, side * 3 // SIDE))
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def wide_as_the_screen(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_teach_three_signs_with_two_drawings_each_and_a_fourth_at_once(server: str, visit: Callable[..., Visitor]):
    visitor, rng = visit(server), random.Random(0)
    page = visitor.page
    assert "First teach two classes" in page.locator("#result").inner_text()
    signs = {"ring": RING, "comb": COMB, "bolt": BOLT}
    for name, sign in signs.items():
        visitor.teach(sign, name, rng)
        visitor.teach(sign, name, rng)
    assert visitor.counts() == dict.fromkeys(signs, "2 examples")
    assert {name: visitor.answer(sign, rng) for name, sign in signs.items()} == {name: name for name in signs}
    assert page.locator(".plot .mark").count() == 6
    assert page.locator(".plot .here").count() == 1
    assert page.locator("#live").inner_text().startswith("bolt, ")
    assert visitor.answer(STAR, rng) == "Unknown"
    assert "Not like any class so far" in page.locator("#result").inner_text()
    page.get_by_label("Wrong, or something new?").fill("star")
    page.get_by_role("button", name="Add as example").click()
    page.locator(".class-name", has_text="star").wait_for()
    assert visitor.settled() == "star"
    assert visitor.answer(STAR, rng) == "star"
    assert visitor.answer(RING, rng) == "ring"
    before = visitor.counts()
    page.reload()
    assert visitor.settled() == "ring"  # neither what was taught is lost, nor the drawing
    assert visitor.counts() == before
    page.locator(".thumb img[src^='blob:']").nth(6).wait_for()


def test_by_keyboard_alone(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server, new_task=False)
    page, seen = visitor.page, []

    def tab_to(wanted: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            node = page.evaluate(
                "(n => n.id + ' ' + (n === document.body ? '' : n.textContent.trim()))(document.activeElement)"
            )
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            on_page = page.evaluate(
                "document.activeElement === document.body"
            )  # between the last element and the first
            assert on_page or outline != "none", node  # always visible
            seen.append(node)
            if wanted in node:
                return
        raise AssertionError((wanted, seen))

    page.locator("main[aria-busy=false]").wait_for()
    before = page.evaluate("location.hash")
    tab_to("Skip to the drawing area")
    tab_to("task-new")
    page.keyboard.press("Enter")
    page.keyboard.type("by keys")
    page.keyboard.press("Enter")
    page.locator("#dialog").wait_for(state="hidden")
    page.wait_for_function("before => location.hash !== before", arg=before)  # until then the task before is open
    page.locator("main[aria-busy=false]").wait_for()
    assert visitor.counts() == {}
    for name, sign in (("ring", RING), ("star", STAR)):
        tab_to("Choose images") if name == "ring" else None
        visitor.choose(None, ("a.png", picture(sign)), ("b.png", picture(sign, 70)))
        page.get_by_role("button", name="Add 2 images").wait_for()
        tab_to("teach-name")
        page.keyboard.press("Control+a")
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        page.locator(".class-name", has_text=name).wait_for()
        while page.evaluate("document.activeElement.textContent") != "Choose images":
            assert page.evaluate("document.activeElement !== document.body")
            page.keyboard.press("Shift+Tab")
    tab_to("Choose image")
    while page.evaluate("document.activeElement.closest('#try-pad') === null"):
        tab_to("Choose image")
    visitor.choose(None, ("c.png", picture(STAR)))
    assert visitor.settled() == "star"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # Clear
    assert page.locator("#try-pad").evaluate("node => node.classList.contains('blank')")


def test_enter_before_the_task_is_loaded_is_answered(server: str, visit: Callable[..., Visitor]):
    visitor, held = visit(server), []
    page = visitor.page
    page.route(re.compile("/examples$"), lambda route: held.append(route), times=1)
    page.reload()
    until(page, lambda: held)
    visitor.choose("teach", ("a.png", picture(RING)))
    page.get_by_label("What is it?").fill("ring")
    page.keyboard.press("Enter")
    page.locator("#teach-error", has_text="Still loading: press Enter again in a moment.").wait_for()
    held.pop().fallback()
    page.locator("main[aria-busy=false]").wait_for()
    assert page.locator("#teach-error").inner_text() == ""
    assert page.evaluate("document.activeElement.id") == "teach-name"
    page.keyboard.press("Enter")
    page.locator(".class-name", has_text="ring").wait_for()


def test_undo_clear_and_a_drawing_that_outlives_a_reload(server: str, visit: Callable[..., Visitor]):
    visitor, rng = visit(server), random.Random(1)
    page = visitor.page
    canvas = page.locator("#teach-pad canvas")
    visitor.draw("teach", COMB, rng)
    assert "4 strokes" in canvas.get_attribute("aria-label")
    page.keyboard.press("Control+z")
    assert "3 strokes" in canvas.get_attribute("aria-label")
    page.locator("#teach-pad .clear").click()
    assert "empty" in canvas.get_attribute("aria-label")
    page.locator("#teach-pad .undo").click()
    page.reload()
    assert "3 strokes" in canvas.get_attribute("aria-label")
    page.get_by_role("button", name="Add example").click()
    assert page.locator("#teach-error").inner_text() == "Give it a name first."
    page.locator("#teach-pad .clear").click()
    page.get_by_label("What is it?").fill("comb")
    page.locator("#teach-add").click()
    assert page.locator("#teach-error").inner_text() == "Draw something or choose images first."


def test_classes_examples_and_tasks_can_be_changed(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server)
    page, name = visitor.page, "<img src=x onerror=alert(1)> & a/b?"
    visitor.choose("teach", *((f"{i}.png", picture(RING, 100 + i)) for i in range(3)))
    page.get_by_label("What is it?").fill(name)
    page.locator("#teach-add").click()
    page.locator(".class").wait_for()
    assert visitor.counts() == {name: "3 examples"}  # as text, whatever it looks like
    page.get_by_role("button", name=re.compile("^Remove example 1 of")).click()
    page.get_by_text("2 examples").wait_for()
    page.locator("#toast").get_by_role("button", name="Undo").click()
    page.get_by_text("3 examples").wait_for()
    visitor.draw("teach", STAR, random.Random(3))
    visitor.drop(".class", picture(RING, 110))
    page.get_by_text("4 examples").wait_for()
    assert "4 strokes" in page.locator("#teach-pad canvas").get_attribute("aria-label")
    page.get_by_role("button", name=re.compile("^Rename")).click()
    page.locator("#dialog-field").fill("ring")
    page.keyboard.press("Enter")
    page.locator(".class-name", has_text=re.compile("^ring$")).wait_for()
    visitor.choose("teach", ("photo.png", picture(STAR, 2400)))  # more pixels than the server takes: scaled down here
    page.get_by_label("What is it?").fill("star")
    page.locator("#teach-add").click()
    page.locator(".class-name", has_text="star").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download model").click()
    assert download.value.suggested_filename == "signs.safetensors"
    assert download.value.path().stat().st_size > 1000
    page.get_by_role("button", name="Remove ring").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Remove ring").click()
    page.locator("#dialog-ok").click()
    page.locator(".class-name", has_text="ring").wait_for(state="detached")
    assert visitor.counts() == {"star": "1 example"}
    gone = page.locator("#task").input_value()
    page.get_by_role("button", name="Delete task").click()
    page.locator("#dialog-ok").click()
    page.wait_for_function("id => document.querySelector('#task').value !== id", arg=gone)
    assert page.locator(f"#task option[value='{gone}']").count() == 0


def test_a_server_that_is_gone_loses_no_drawing(server: str, visit: Callable[..., Visitor]):
    visitor, rng = visit(server, allowed="ERR_INTERNET_DISCONNECTED"), random.Random(2)
    page = visitor.page
    visitor.context.set_offline(True)
    visitor.draw("teach", BOLT, rng)
    page.get_by_label("What is it?").fill("bolt")
    page.locator("#teach-add").click()
    page.get_by_text("The server does not answer").wait_for()
    for _ in range(2):
        page.locator("#teach-add:enabled").click()
        page.locator("#teach-add:enabled").wait_for()
    assert "3 strokes" in page.locator("#teach-pad canvas").get_attribute("aria-label")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_timeout(100)
    assert page.locator("#banner").is_visible()
    visitor.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("Not done: add 1 example of “bolt”.").wait_for()  # nothing is repeated by itself
    assert page.locator("#banner").is_hidden()
    assert "3 strokes" in page.locator("#teach-pad canvas").get_attribute("aria-label")
    page.locator("#teach-add").click()
    page.locator(".class-name", has_text="bolt").wait_for()
    assert visitor.counts() == {"bolt": "1 example"}


def lose(page: Any, method: str, where: str, *, arrives: bool = False, times: int = 1) -> list[str]:
    """Let requests get no answer, though they may arrive; the list of those to come."""
    lost: list[str] = []

    def handle(route: Any) -> None:
        if route.request.method != method or len(lost) == times:
            return route.fallback()
        lost.append(route.request.url)
        if arrives:
            route.fetch()
        return route.abort()

    page.route(re.compile(where), handle)
    return lost


def test_try_again_deletes_no_other_task(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server, allowed="ERR_FAILED")
    page = visitor.page
    first = page.locator("#task").input_value()
    second = visitor.new_task("another")
    tasks = page.locator("#task option").count()
    lost = lose(page, "DELETE", "/tasks/", times=2)
    for left, said in ((tasks, "Not done: delete"), (tasks - 1, "Done after all: delete")):
        page.locator("#task").select_option(first)
        page.locator("#task-delete:enabled").click()
        page.locator("#dialog-ok").click()
        page.get_by_text("Not confirmed: delete the task “signs”.").wait_for()
        page.locator("#task").select_option(second)
        page.locator("main[aria-busy=false]").wait_for()
        assert page.locator("#banner").is_visible()  # what was not done is still said
        if said.startswith("Done"):
            page.request.delete(f"{server}tasks/{first}")
        page.get_by_role("button", name="Try again").click()
        page.get_by_text(said).wait_for()
        assert page.locator("#task").input_value() == second
        assert page.locator("#task option").count() == left
    assert lost == [f"{server}tasks/{first}"] * 2


@pytest.mark.parametrize("way", ["Add again", "Try again"])
def test_a_drawing_whose_answer_was_lost_is_added_once(server: str, visit: Callable[..., Visitor], way: str):
    visitor = visit(server, allowed="ERR_FAILED")
    page, rng = visitor.page, random.Random(4)
    visitor.draw("teach", BOLT, rng)
    page.get_by_label("What is it?").fill("bolt")
    lose(page, "POST", "/examples$", arrives=True)
    page.locator("#teach-add").click()
    page.get_by_text("Not confirmed: add 1 example of “bolt”.").wait_for()
    page.locator("#teach-add" if way == "Add again" else "#retry").click()
    page.get_by_text("Done after all: add 1 example of “bolt”.").wait_for()
    page.locator("#teach-pad.blank").wait_for()
    assert visitor.counts() == {"bolt": "1 example"}
    page.locator("#teach-pad .undo").click()  # in case it was another one
    assert "3 strokes" in page.locator("#teach-pad canvas").get_attribute("aria-label")
    page.locator("#teach-add").click()
    page.get_by_text("2 examples").wait_for()


def test_what_is_under_way_stays_in_its_task(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server)
    page, held = visitor.page, []
    first = page.locator("#task").input_value()
    page.route(re.compile("/examples$"), lambda route: held.append(route) if is_post(route) else route.fallback())
    visitor.choose("teach", *((f"{i}.png", picture(RING, 20 + i)) for i in range(40)))
    page.get_by_label("What is it?").fill("ring")
    page.locator("#teach-add").click()
    page.locator("#teach-add[aria-busy=true]:disabled", has_text="Adding 32 of 40").wait_for()
    page.get_by_label("What is it?").press("Enter")  # not a second time
    second = visitor.new_task("another")
    until(page, lambda: held)
    held.pop().fallback()
    until(page, lambda: held)
    assert first in held[0].request.url
    assert "8 images" in page.locator("#teach-pad canvas").get_attribute("aria-label")
    held.pop().fallback()
    page.locator("#teach-pad.blank").wait_for()
    page.locator("#teach-add:enabled").wait_for()
    assert visitor.counts() == {}
    page.locator("#task").select_option(first)
    page.get_by_text("40 examples").wait_for()
    page.get_by_role("button", name="Remove example 1 of ring").click()
    page.locator("#toast").get_by_role("button", name="Undo").wait_for()
    page.locator("#task").select_option(second)
    page.locator("#toast").wait_for(state="hidden")


def is_post(route: Any) -> bool:
    return route.request.method == "POST"


def until(page: Any, met: Callable[[], Any]) -> None:
    for _ in range(500):
        if met():
            return
        page.wait_for_timeout(10)
    raise AssertionError("it never came")


def test_a_refusal_amid_many_files_leaves_those_that_were_not_added(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server, allowed="status of 413")
    page, seen = visitor.page, []
    page.route(re.compile("/health$"), with_limits)
    page.reload()
    page.get_by_text("Everything stays on this server").wait_for()

    def refuse(route: Any) -> None:
        seen.append(route) if is_post(route) else None
        if len(seen) == 2 and is_post(route):
            route.fulfill(status=413, json={"error": "too large"})
        else:
            route.fallback()

    page.route(re.compile("/examples$"), refuse)
    visitor.choose("teach", *((f"{i}.png", picture(RING, 20 + i)) for i in range(11)))
    page.get_by_label("What is it?").fill("ring")
    page.locator("#teach-add").click()
    page.get_by_text("4 of 11 were added, then: too large").wait_for()
    assert "7 images" in page.locator("#teach-pad canvas").get_attribute("aria-label")
    page.get_by_text("4 examples").wait_for()
    page.locator("#teach-add:enabled").click()
    page.get_by_text("11 examples").wait_for()


def with_limits(route: Any) -> None:
    """/health as a server says it that takes few files at once."""
    route.fulfill(json={**route.fetch().json(), "limits": {"files": 4, "body_bytes": 1_000_000}})


def test_a_drop_and_an_undo_that_fail_lose_no_picture(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server, allowed="ERR_FAILED")
    page = visitor.page
    visitor.teach(RING, "ring", random.Random(7))
    lose(page, "POST", "/examples$", times=1)
    visitor.drop(".class", picture(RING))
    page.get_by_text("Not confirmed: add 1 example of “ring”.").wait_for()
    page.locator("#teach-pad canvas[aria-label*='1 image']").wait_for()
    page.locator("#teach-add:enabled").click()
    page.get_by_text("2 examples").wait_for()
    assert page.locator("#banner").is_hidden()
    page.get_by_role("button", name="Remove example 1 of ring").click()
    page.get_by_text("1 example", exact=True).wait_for()
    lose(page, "POST", "/examples$", arrives=True)
    page.locator("#toast").get_by_role("button", name="Undo").click()
    page.get_by_text("was not brought back").wait_for()
    page.locator("#toast").get_by_role("button", name="Undo").click()
    page.get_by_text("Done after all: add 1 example").wait_for()
    assert visitor.counts() == {"ring": "2 examples"}


def test_links_to_tasks(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server)
    page = visitor.page
    first = page.locator("#task").input_value()
    newest = visitor.new_task("another")
    page.evaluate("first => { location.hash = first }", first)
    page.wait_for_function("first => document.querySelector('#task').value === first", arg=first)
    page.locator(".jump a").first.evaluate("link => link.click()")
    page.wait_for_function("first => location.hash === '#' + first", arg=first)  # links within the page open no task
    for bad in ("%", "gone"):
        page.goto("about:blank")
        page.goto(f"{server}#{bad}")
        page.get_by_text("The task that was open or linked is not on this server. “another” is open").wait_for()
        assert page.locator("#task").input_value() == newest
        assert page.evaluate("location.hash") == f"#{newest}"
    page.get_by_text("None yet").wait_for()


def test_without_a_store_in_the_tab_and_with_a_cut_answer(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server, new_task=False)
    page = visitor.page
    page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
    )
    page.route(re.compile("/tasks$"), lambda route: route.fulfill(body='[{"id": "a'), times=1)
    page.reload()
    page.get_by_role("button", name="Try again").click()
    page.locator("main[aria-busy=false]").wait_for()
    assert page.locator("#banner").is_hidden()
    visitor.draw("try", RING, random.Random(5))
    assert "1 stroke" in page.locator("#try-pad canvas").get_attribute("aria-label")
    page.evaluate("Promise.reject(new RangeError('this and that')) && null")
    page.get_by_text("Something went wrong on this page (this and that)").wait_for()
    visitor.console.clear()


def test_many_classes_are_folded_and_their_pictures_wait(server: str, visit: Callable[..., Visitor]):
    visitor = visit(server)
    page = visitor.page
    task = page.locator("#task").input_value()
    visitor.draw("try", RING, random.Random(6))

    def add(name: str, size: int) -> None:
        content = {"label": name, "files": {"name": "a.png", "mimeType": "image/png", "buffer": picture(RING, size)}}
        assert page.request.post(f"{server}tasks/{task}/examples", multipart=content).status == 201

    add("c0", 20)
    page.reload()
    page.get_by_text("One class is there").wait_for()
    assert page.get_by_role("button", name="Download model").is_disabled()
    for i in range(1, 24):
        add(f"c{i}", 20 + i)

    def no_score(route: Any) -> None:
        answer = route.fetch().json()
        answer["predictions"][0]["unknown_score"] = None
        route.fulfill(json=answer)

    page.route(re.compile("/classify"), no_score)
    visitor.requests.clear()
    page.reload()
    visitor.settled()
    page.get_by_text("Too few examples to recognise what is unknown.").wait_for()
    kinds = [kind for url in visitor.requests for kind in ("/classify", ".png") if kind in url]
    assert kinds[0] == "/classify"
    assert 0 < kinds.count(".png") < 20
    assert page.locator(".class-name").count() == 20
    page.get_by_placeholder("Filter by name").fill("C23")
    assert page.locator(".class-name").all_inner_texts() == ["c23"]
    page.get_by_placeholder("Filter by name").fill("nothing")
    page.get_by_text("No class has a name like this").wait_for()
    page.get_by_placeholder("Filter by name").fill("")
    page.get_by_role("button", name="Show 4 more classes").click()
    assert page.locator(".class-name").count() == 24


def test_a_token_and_limits(tmp_path: Path, visit: Callable[..., Visitor]):
    from quickstudy.serve import Limits

    with running(tmp_path, token="sesame", limits=Limits(examples_per_class=2)) as url:
        visitor = visit(url, new_task=False, allowed="status of 4")
        page = visitor.page
        page.locator("#dialog-field").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("did not accept this token").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Enter the token").click()
        page.locator("#dialog-field").fill("sésame→")  # no header could carry that: it is not taken
        page.keyboard.press("Enter")
        assert page.locator("#dialog-field:invalid").is_visible()
        page.locator("#dialog-field").fill("sesame")
        page.keyboard.press("Enter")
        page.get_by_text("None yet").wait_for()
        page.reload()
        page.get_by_text("None yet").wait_for()  # the token is remembered, by this tab
        visitor.choose("teach", *((f"{i}.png", picture(RING, 90 + i)) for i in range(3)))
        page.get_by_label("What is it?").fill("ring")
        page.locator("#teach-add").click()
        page.locator("#teach-error:not(:empty)").wait_for()
        assert "2" in page.locator("#teach-error").inner_text()
        assert "3 images" in page.locator("#teach-pad canvas").get_attribute("aria-label")  # kept, to try again
        visitor.choose("teach", ("no.png", b"no image at all"))
        page.locator("#teach-add").click()
        page.get_by_text("required is a PNG").wait_for()
        visitor.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_at_a_phones_width(server: str, visit: Callable[..., Visitor], scheme: str):
    size = {"width": 360, "height": 740}
    visitor = visit(server, viewport=size, color_scheme=scheme, has_touch=True, reduced_motion="reduce")
    page = visitor.page
    assert wide_as_the_screen(page)
    for name, sign in (("w" * 80, RING), ("a name of several words that goes on and on", STAR)):
        visitor.choose("teach", ("a.png", picture(sign)), ("b.png", picture(sign, 90)))
        page.get_by_label("What is it?").fill(name)
        page.locator("#teach-add").click()
        page.locator(".class-name", has_text=name).wait_for()
        assert wide_as_the_screen(page)
    visitor.choose("try", ("c.png", picture(RING, 80)))
    assert visitor.settled() == "w" * 80
    assert wide_as_the_screen(page)
    assert page.locator("canvas").first.evaluate("node => getComputedStyle(node).touchAction") == "none"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")
    durations = "getComputedStyle(document.querySelector('.bar'), '::before').transitionDuration"
    assert page.evaluate(durations) == "0s"


def test_the_page_asks_nobody_outside_and_writes_no_markup():
    for file in sorted(PAGE.iterdir()):
        text = file.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), file.name
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str):
    css = (PAGE / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", blocks[0]))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([\w-]+): (#\w+);", blocks[1]))

    def luminance(name: str) -> float:
        hexes = colours[name][1:]
        parts = [int(c, 16) / 255 for c in (re.findall("..", hexes) if len(hexes) == 6 else [2 * c for c in hexes])]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    for ground in ("ground", "surface", "sunk"):
        for text in ("ink", "soft", "accent", "danger"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast("accent", "tint") >= 4.5
    assert contrast("on-accent", "accent") >= 4.5
    assert contrast("on-danger", "danger") >= 4.5
    assert contrast("edge", "surface") >= 3
    assert all(contrast(f"c{i}", ground) >= 3 for i in range(7) for ground in ("surface", "sunk"))
