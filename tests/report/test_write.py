"""The report as a reader's browser gets it: whole, self-contained, and true to what the learner said."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

import quickstudy as q
from quickstudy import report
from quickstudy.report import measure
from quickstudy.runs import RunFolder, Settings

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag was closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def anchors(self) -> set[str]:
        return {attributes["id"] for attributes in self.of("section")}

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text.replace("\u200b", ""))


def characters(channels: int = 1, *, classes: int = 12, examples: int = 8, **settings) -> q.ClassTasks:
    """Noisy images in 3 groups: a bright bar per class on a dark ground, so that some mistakes remain."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 90 if channels == 1 else 200, (classes * examples, channels, 16, 16), dtype=np.uint8)
    x[rng.random(x.shape) < 0.6] = 0 if channels == 1 else 120
    y = np.repeat(np.arange(classes), examples)
    for i, k in enumerate(y):
        x[i, 0, k % 16, 2:14] = 255
    names = [f"<b>&{k}" if k == 3 else f"class/{k}" for k in y]
    return q.ClassTasks(x, names, groups=[f"group {k % 3}" for k in y], way=2, queries=1, **settings)


def rows(**settings) -> q.ClassTasks:
    """A table: 6 classes of vectors."""
    x = np.random.default_rng(0).normal(size=(36, 5)).astype(np.float32)
    y = np.repeat(np.arange(6), 6)
    x[:, 0] += y
    return q.ClassTasks(x, y, way=2, queries=1, **settings)


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return build()


@pytest.fixture
def make(tmp_path, monkeypatch):
    """(learner, tasks, records...) → a run folder whose meta-test part is ``tasks``."""

    def run(learner, tasks=None, /, *, validated=True, stopped_at=6, **settings) -> RunFolder:
        if tasks is not None:
            monkeypatch.setattr(Settings, "part", lambda self, part, **changes: tasks.replace(**changes))
        folder = RunFolder(tmp_path / "run")
        facts = {
            "versions": {"torch": "2.x"},
            "data_sha256": "ab" * 32,
            "machine": {"threads": 1},
            "command": ["quickstudy", "train", "--out", "my runs"],
        }
        folder.start(Settings(steps=6, **settings), overwrite=True, facts=facts)
        for step in range(1, stopped_at + 1):
            folder.record(step=step, loss=2 / step, lr=0.1)
            if validated and step % 2 == 0:
                regression = settings.get("tasks") == "sinusoid"
                metric, value = ("mean_squared_error", 4 / step) if regression else ("accuracy", 0.5 + step / 40)
                folder.record(step=step, validation=value, ci95=0.05, metric=metric)
        if learner is not None:
            q.save(learner, folder.learner)
        return folder

    return run


def protonet(channels: int = 1) -> q.ProtoNet:
    return seeded(lambda: q.ProtoNet(q.Conv4(channels, 8, image_size=16)))


def read(path) -> Page:
    return Page(path.read_text())


def pictures(page: Page) -> list[str]:
    found = [attributes["src"] for attributes in page.of("img")]
    return found + [attributes["href"] for attributes in page.of("image")]


def test_one_file_with_every_section_and_nothing_outside(make):
    path = report.write(make(protonet(), characters()), episodes=3)
    page, text = read(path), path.read_text()
    assert path.name == "report.html"
    assert page.anchors() == {"scores", "learning", "examples", "curves", "embedding", "settings", "meaning"}
    assert not page.of("script")
    assert "http:" not in text
    assert "https:" not in text
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    for target in re.findall(r"url\((.)", text):
        assert target == "#"


def test_every_picture_is_inside_and_has_a_text_alternative(make):
    page = read(report.write(make(protonet(), characters()), episodes=3))
    embedded = pictures(page)
    assert len(embedded) == 2 * (5 + 10) + 4 * 6 + 4  # two episodes; 4 classes of the first group and their legend
    for uri in embedded:
        assert Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))).size == (16, 16)
    assert all("alt" in attributes for attributes in page.of("img"))
    for attributes in page.of("svg"):
        assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_ids_are_unique_and_every_reference_has_its_target(make):
    path = report.write(make(protonet(), characters()), episodes=3)
    ids = [attributes["id"] for _, attributes in read(path).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', path.read_text()))
    assert {first or second for first, second in used} <= set(ids)


def test_title_language_and_a_width_for_phones(make):
    page = read(report.write(make(protonet(), characters()), episodes=3))
    assert page.of("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    assert "protonet on glyphs – quickstudy report" in page.text
    assert len(page.of("h1")) == 1


def test_names_are_escaped(make):
    page = read(report.write(make(protonet(), characters()), episodes=3))
    assert not [name for name in page.of("b") if name]
    assert "<b>&3" in page.text


def test_headline_facts(make):
    learner = protonet()
    size = sum(p.numel() for p in learner.parameters())
    words = read(report.write(make(learner, characters()), episodes=3)).words
    for fact in (
        "Meta-parameters",
        f"{size:,}",
        "65.00 ± 5.00 % at outer step 6",
        "6 outer steps",
        "glyphs, split scripts",
    ):
        assert fact in words
    for shown in ("'my runs'", "ab" * 32, "validation_episodes", "1.96·sd/√episodes", "torch 2.x"):
        assert shown in words


def test_training_time_comes_from_the_checkpoint(make):
    learner = protonet()
    folder = make(learner, characters())
    generator, optimizer = torch.Generator(), torch.optim.SGD(learner.parameters(), lr=0.1)
    notes = {"seconds": 125.2}
    q.save_checkpoint(folder.checkpoint, learner, optimizer, step=6, generator=generator, notes=notes)
    assert "6 outer steps in 2 min 5 s" in read(report.write(folder, episodes=2)).words


def test_mistakes_are_marked_by_sign_frame_and_word(make):
    learner, tasks = protonet(), characters()
    page = read(report.write(make(learner, tasks), episodes=2))
    generator = torch.Generator().manual_seed(0)
    drawn = measure.examples(learner.eval(), tasks, n=2, way=5, queries=2, generator=generator)
    said = [pair for example in drawn for pair in zip(example.predicted, example.true, strict=True)]
    wrong = [p for p, t in said if p != t]
    assert 0 < len(wrong) < len(said) == 20
    assert sum(attributes.get("class") == "wrong" for attributes in page.of("td")) == len(wrong)
    assert page.text.count("✗ ") - 1 == len(wrong)  # once in the words above the grid
    for k in set(wrong):
        assert page.text.count(f"mistake: named {'ABCDE'[k]}") == wrong.count(k)


def test_given_comparisons_become_tables_with_differences_to_the_first(make):
    tasks, rivals = characters().replace(queries=3), {"pixels": q.NearestNeighbour()}
    given = q.compare({"protonet": protonet(), **rivals}, tasks, episodes=4, generator=torch.Generator().manual_seed(7))
    page = read(report.write(make(protonet(), tasks), rivals=rivals, comparisons={"2-way": given}, episodes=2))
    mean, ci95 = given.differences["protonet", "pixels"]
    for shown in (
        "2-way, meta-test, seed 7",
        "minus protonet",
        f"{-100 * mean:+.2f} ± {100 * ci95:.2f}".replace("-", "−"),
        f"{100 * given.scores['pixels'].mean:.2f} ± {100 * given.scores['pixels'].ci95:.2f} %",
        "2-way 1-shot 3-query",
        "inductive",
    ):
        assert shown in page.words
    assert f"protonet is right on {100 * given.scores['protonet'].mean:.2f}" in page.words


def test_batch_statistics_are_called_transductive(make):
    learner = seeded(lambda: q.ProtoNet(q.Conv4(1, 8, norm="batch", image_size=16)))
    assert (
        "transductive"
        in read(report.write(make(learner, characters()), episodes=2)).words.rsplit("What the numbers", 1)[0]
    )


def test_the_same_run_gives_the_same_bytes(make):
    tasks = characters()
    comparison = q.compare({"protonet": protonet()}, tasks, episodes=2, generator=torch.Generator().manual_seed(0))
    folder = make(protonet(), tasks)
    first = report.write(folder, comparisons={"2-way 1-shot": comparison}, episodes=2).read_bytes()
    assert report.write(folder, comparisons={"2-way 1-shot": comparison}, episodes=2).read_bytes() == first


def test_the_global_random_state_and_matplotlib_are_left_alone(make):
    import matplotlib

    state, settings = torch.get_rng_state(), dict(matplotlib.rcParams)
    report.write(make(q.NearestNeighbour(), characters(), learner="nearest_neighbour"), episodes=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(matplotlib.rcParams) == settings


def test_without_validation_and_records_it_says_so(make):
    folder = make(protonet(), characters(), validated=False)
    assert "holds no meta-validation" in read(report.write(folder, episodes=2)).words
    folder.metrics.unlink()
    words = read(report.write(folder, episodes=2)).words
    assert "no record of its meta-training loss" in words
    assert "Training stopped at outer step 0 of 6" in words


def test_a_stopped_run_is_called_unfinished(make):
    folder = make(protonet(), characters(), stopped_at=4)
    assert "Training stopped at outer step 4 of 6" in read(report.write(folder, episodes=2)).words


def test_without_a_learner_it_says_what_to_do(make):
    with pytest.raises(ValueError, match=r"learner\.safetensors does not exist.*quickstudy train --resume --out"):
        report.write(make(None, characters()))


def test_no_run(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        report.write(RunFolder(tmp_path))


def test_a_rival_of_the_same_name_and_a_single_episode_are_refused(make):
    folder = make(protonet(), characters())
    with pytest.raises(ValueError, match=r"a rival is named 'protonet'.*required are different names"):
        report.write(folder, rivals={"protonet": q.NearestNeighbour()})
    with pytest.raises(ValueError, match="episodes=1; required are at least 2"):
        report.write(folder, episodes=1)


def test_examples_that_are_no_images(make):
    learner = seeded(lambda: q.ProtoNet(q.MLP(5, (8,), 4)))
    page = read(report.write(make(learner, rows(), backbone="mlp"), episodes=2))
    assert "are no images" in page.words
    assert not pictures(page)
    assert any(attributes.get("class") == "plane" for attributes in page.of("svg"))


def test_colour_images_get_frames(make):
    page = read(report.write(make(protonet(3), characters(3)), episodes=2))
    assert len(page.of("image")) == len([r for r in page.of("rect") if "stroke" in r]) == 24


def test_a_learner_without_a_network_has_no_embedding(make):
    page = read(report.write(make(q.NearestNeighbour(), characters(), learner="nearest_neighbour"), episodes=2))
    assert "nearest_neighbour has no embedding" in page.words


def test_within_a_group_and_with_few_examples(make):
    folder = make(protonet(), characters(examples=2, within_group=True), within_group=True)
    words = read(report.write(folder, episodes=2)).words
    assert "4-way 1-shot 1-query" in words
    assert "5-way 1-shot 1-query" not in words


def test_a_learner_of_one_way(make):
    learner = seeded(lambda: q.MAML(q.MLP(256, (8,), 3), head=None))
    folder = make(learner, characters(), learner="maml", backbone="mlp", head="none", way=3)
    words = read(report.write(folder, episodes=2)).words
    assert "3-way 1-shot" in words
    assert "5-way" not in words
    settings = json.loads(folder.config.read_text())
    settings["settings"]["way"] = 13
    folder.config.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"built for 13-way tasks alone.*permits 12-way.*another head"):
        report.write(folder, episodes=2)


def test_sine_waves(make):
    learner = seeded(lambda: q.MAML(q.MLP(1, (8,), 1), head=None, inner_lr=0.01))
    page = read(report.write(make(learner, learner="maml", tasks="sinusoid", backbone="mlp", shot=7), episodes=3))
    assert page.anchors() == {"scores", "learning", "examples", "curves", "settings", "meaning"}
    labels = " ".join(attributes.get("aria-label", "") for attributes in page.of("svg"))
    assert len(re.findall(r"Sine wave \d: mean squared error [\d.]+ after adaptation, [\d.]+ before", labels)) == 4
    for words in ("maml before adaptation", "7-shot, meta-test", "0.6667 ± 0.0500 at outer step 6", "fresh tasks"):
        assert words in page.words
    assert not pictures(page)
