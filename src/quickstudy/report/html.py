"""From a run folder to its report.html: what is said, in which order; how it looks is in ``report.html.jinja``."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from quickstudy.episode import TaskDistribution
from quickstudy.evaluation import Comparison
from quickstudy.files import write_atomically
from quickstudy.learner import Learner
from quickstudy.report import classes, measure, regression, run
from quickstudy.report.page import Section, score_table, value
from quickstudy.runs import RunFolder, Settings
from quickstudy.saving import load
from quickstudy.tasks import ClassTasks, examples_of


def write(
    folder: RunFolder,
    *,
    rivals: Mapping[str, Learner] | None = None,
    comparisons: Mapping[str, Comparison] | None = None,
    episodes: int = 100,
    seed: int = 0,
) -> Path:
    """Measure the learner of a run on its meta-test part and write ``report.html``: one file that needs no other.

    Args:
        folder: a run with a learner.
        rivals: name → learner, drawn beside it in the curves.
        comparisons: name ("5-way 1-shot") → scores that were measured before, one table each; by default the learner
            and its rivals are measured on 5-way and 20-way 1-shot tasks.
        episodes: for each measured score, at most; fewer where an episode holds many images, so that the report of a
            Conv4 takes some seconds.
        seed: of every episode that is drawn.

    Returns:
        the path of the report.

    Raises:
        ValueError: no run, a run without a learner, fewer than 2 episodes, or a rival that is named like the learner.
    """
    config, settings, records = folder.read_config(), folder.settings(), folder.records()
    if episodes < 2:
        raise ValueError(f"episodes={episodes}; required are at least 2, for a mean and its ci95")
    if not folder.learner.exists():
        raise ValueError(
            f"{folder.learner} does not exist: training stopped before a learner was saved; required is a run with a "
            f"learner: go on with quickstudy train --resume --out {folder.path}"
        )
    name, learner = settings.learner, load(folder.learner)
    if name in (rivals or {}):
        raise ValueError(
            f"a rival is named {name!r}, and so is the learner of the run; required are different names: give the "
            "rival another one"
        )
    learners = {name: learner, **(rivals or {})}
    tasks = measure.unseen_tasks(settings)
    if isinstance(tasks, ClassTasks):
        scores, sections = classes.sections(learners, tasks, settings, comparisons, episodes=episodes, seed=seed)
    elif examples_of(tasks) is not None:  # drawn in a way of their own: judged in the shape of training, and no more
        shape = f"{settings.way}-way {settings.shot}-shot"
        scores, sections = comparisons or {shape: measure.as_trained(learners, settings, episodes, seed)}, []
    else:
        scores, sections = regression.sections(learners, tasks, settings, comparisons, episodes=episodes, seed=seed)
    tables = [score_table(of, comparison) for of, comparison in scores.items()]
    page = environment().get_template("report.html.jinja")
    text = page.render(
        title=f"{name} on {settings.tasks}",
        lead=_lead(name, scores),
        warning=run.unfinished(settings, records),
        facts=run.facts(folder, settings, records, learner),
        sections=[
            Section("Test scores", "scores", [_test_words(tasks, settings)], tables=tables),
            run.curve(settings, records),
            *sections,
            run.about(config),
            run.meaning(),
        ],
    )
    write_atomically(folder.report, text.encode())
    return folder.report


def environment() -> Environment:
    """The template's: everything that is put into a page is escaped."""
    return Environment(
        loader=PackageLoader("quickstudy", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _test_words(distribution: TaskDistribution, settings: Settings) -> str:
    tasks = examples_of(distribution)
    if tasks is None:
        return "New tasks from the distribution of meta-training."
    groups = list(dict.fromkeys(str(g) for g in tasks.class_groups or []))
    several = f" of {len(groups)} groups" if groups else ""
    if 0 < len(groups) <= 8:
        several += f" ({', '.join(groups)})"
    low, high = int(tasks.counts.min()), int(tasks.counts.max())
    each = f"{low}" if low == high else f"{low}–{high}"
    return (
        f"The meta-test part of {settings.tasks} holds {len(tasks):,} classes{several} with {each} examples each. None "
        "of them took part in meta-training or in the choice of the learner."
    )


def _lead(name: str, scores: Mapping[str, Comparison]) -> str:
    """The first score in a sentence."""
    of, comparison = next(iter(scores.items()))
    learner = name if name in comparison.scores else next(iter(comparison.scores))
    score = comparison.scores[learner]
    shown = value(score.mean, score.ci95, score.metric)
    if score.metric != "accuracy":
        return f"On new {of} tasks, {learner} predicts with a {score.metric.replace('_', ' ')} of {shown}."
    chance = f" (chance: {100 / score.way:.0f} %)" if isinstance(score.way, int) and score.way else ""
    return f"On {of} tasks over classes it has never seen, {learner} is right on {shown} of the queries{chance}."
