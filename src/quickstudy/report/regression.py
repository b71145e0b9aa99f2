"""The sections of a run on regression tasks: sine waves before and after adaptation, errors against shots."""

import dataclasses
from collections.abc import Mapping

import torch

from quickstudy.episode import TaskDistribution
from quickstudy.evaluation import Comparison
from quickstudy.learner import Learner
from quickstudy.report import figures, marks, measure
from quickstudy.report.page import Picture, Section, point_table
from quickstudy.runs import Settings
from quickstudy.tasks import Sinusoid

_SHOTS = (1, 2, 3, 5, 10, 20)


def sections(
    learners: Mapping[str, Learner],
    tasks: TaskDistribution,
    settings: Settings,
    comparisons: Mapping[str, Comparison] | None,
    *,
    episodes: int,
    seed: int,
) -> tuple[Mapping[str, Comparison], list[Section]]:
    """The scores for the tables (``comparisons`` where given), and the sections."""
    name, learner = next(iter(learners.items()))
    before = measure.unadapted(learner)
    everyone = dict(learners) if before is None else {**learners, f"{name} before adaptation": before}
    shots = sorted({*_SHOTS, settings.shot})
    by_shot = measure.regression_over_shots(everyone, settings, shots=shots, episodes=episodes, seed=seed)
    caption = "Mean squared error ± ci95, in squared units of the target"
    table = point_table(caption, "shot", by_shot, queries="queries", folded=False)
    words = f"{name} was meta-trained at {settings.shot} support points; here it adapts to fewer and to more."
    found = [_waves(name, learner, tasks, settings, seed)] if isinstance(tasks, Sinusoid) else []
    found.append(Section("Error against shots", "curves", [words], tables=[table]))
    return comparisons or {f"{settings.shot}-shot": by_shot[settings.shot]}, found


def _waves(name: str, learner: Learner, tasks: Sinusoid, settings: Settings, seed: int) -> Section:
    tasks = dataclasses.replace(tasks, shot=settings.shot)
    panels, before = [], False
    for number, wave in enumerate(measure.waves(learner, tasks, n=4, generator=torch.Generator().manual_seed(seed)), 1):
        label = f"Sine wave {number}: mean squared error {float((wave.after - wave.y).square().mean()):.3f}"
        if wave.before is not None:
            label += f" after adaptation, {float((wave.before - wave.y).square().mean()):.3f} before"
            before = True
        panels.append(figures.wave(wave, label=f"{label}."))
    caption = (
        f"Four sine waves, the first that were drawn. {name} sees the {settings.shot} support points and predicts the "
        "whole curve."
    )
    return Section("Example tasks", "examples", pictures=[Picture(panels, caption, marks.wave_keys(before=before))])
