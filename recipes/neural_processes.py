"""CNP and attentive neural process on sinusoids and on draws of Gaussian processes: log likelihood and 95 % intervals.

    python recipes/neural_processes.py --seed 0
    python recipes/neural_processes.py --seed 0 --figure     # draws docs/figures/neural_processes.png of the saved ones

Each meta-batch draws its number of points from 3 to 20. Judged on 1,000 fresh tasks of the same distribution, and at 3,
10 and 20 points: mean log likelihood of a query in nats, squared error, coverage and mean width of the 95 % interval.
Beside draws of a Gaussian process stands the exact posterior, which knows the kernel of each task: an upper bound.
Sinusoids have no noise, so theirs has no bound. Appends a line for each learner to
benchmarks/results/neural_processes.jsonl; a learner that runs/ holds already is not trained again.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from result import RESULTS
from torch import Tensor, nn

import quickstudy as qs
from quickstudy.evaluation import mean_ci95
from quickstudy.intervals import coverage
from quickstudy.learners.neural_process import NeuralProcess, log_normal
from quickstudy.process import use_threads
from quickstudy.report.uncertainty import Band, draw

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "neural_processes.png"
LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
LEARNERS: dict[str, Callable[..., NeuralProcess]] = {"cnp": qs.CNP, "attentive_np": qs.AttentiveNP}
Answer = Callable[[qs.Episode, Any], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    width: int = 128
    steps: int = 10000
    meta_batch: int = 16
    lr: float = 1e-3
    clip: float = 1.0
    fewest: int = 3
    most: int = 20
    queries: int = 40


def distribution(name: str, args: Args, **changes: Any) -> Any:
    """Sinusoids, or Gaussian processes of an RBF kernel, noise 0.05."""
    kind = {"sinusoid": qs.Sinusoid, "gaussian_process": qs.GaussianProcess}[name]
    return kind(**{"shot": (args.fewest, args.most), "queries": args.queries, **changes})


def train(name: str, tasks: Any, args: Args) -> tuple[NeuralProcess, dict[str, Any]]:
    """The learner, and what its training cost."""
    torch.default_generator.manual_seed(args.seed)  # initial weights are drawn by torch's own layers
    learner = LEARNERS[name](width=args.width)
    optimizer = torch.optim.Adam(learner.parameters(), lr=args.lr)

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(learner.parameters(), args.clip)

    optimizer.register_step_pre_hook(clip)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    began, cpu, losses = time.perf_counter(), time.process_time(), []
    for step in qs.meta_train(
        learner,
        tasks,
        optimizer,
        steps=args.steps,
        meta_batch=args.meta_batch,
        generator=torch.Generator().manual_seed(args.seed),
        meta_loss=lambda learner, batch: qs.unrolled(learner, batch, strategy="vmap"),
    ):
        schedule.step()
        losses.append(step.loss)
        if step.step % max(1, args.steps // 10) == 0:
            sys.stderr.write(f"{name}, step {step.step}: {np.mean(losses):.3f} nats\n")
            losses = []
    cost = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return learner, {"steps": args.steps, "seed": args.seed, **cost, "threads": args.threads}


@torch.no_grad()
def judge(answer: Answer, tasks: Any, *, episodes: int = 1000) -> dict[str, Any]:
    """Log likelihood, squared error, coverage and width over fresh tasks, the same ones for every ``answer``."""
    generator, rows = torch.Generator().manual_seed(1_000_000), []
    for _ in range(episodes):
        episode, kernel = tasks.draw(1, generator=generator) if "kernel" in vars(tasks) else (None, None)
        episode = episode or tasks.sample(1, generator=generator)
        y = episode.query.y[0]
        mean, deviation = answer(episode, kernel)
        lower, upper = mean - Z * deviation, mean + Z * deviation
        error = (mean - y).square().mean()
        found = log_normal(y, mean, deviation).mean(), error, coverage(lower, upper, y), (upper - lower).mean()
        rows.append(torch.stack([value.double() for value in found]))
    (log_likelihood, ci95), (error, _), (held, held_ci95), (width, _) = (
        mean_ci95(values) for values in torch.stack(rows).T
    )
    interval = {"level": LEVEL, "coverage": held, "coverage_ci95": held_ci95, "width": width}
    return {"log_likelihood": log_likelihood, "ci95": ci95, "mean_squared_error": error, **interval}


def of_learner(learner: NeuralProcess) -> Answer:
    """Mean and deviation according to a learner."""

    def answer(episode: qs.Episode, kernel: Any) -> tuple[Tensor, Tensor]:
        support, query = qs.task(episode, 0)
        return learner.distribution(learner.adapt(support), query.x)

    return answer


def exact(tasks: Any) -> Answer:
    """Mean and deviation according to the Gaussian process itself."""

    def answer(episode: qs.Episode, kernel: Any) -> tuple[Tensor, Tensor]:
        mean, deviation = tasks.posterior(episode.support, episode.query.x, kernel)
        return mean[0], deviation[0]

    return answer


def everything(answer: Callable[[Any], Answer], name: str, args: Args) -> dict[str, Any]:
    """Scores over the range of points, and at 3, 10 and 20 of them."""
    tasks = distribution(name, args)
    at = {shot: distribution(name, args, shot=shot) for shot in (3, 10, 20)}
    by_shot = {str(shot): judge(answer(fixed), fixed, episodes=300) for shot, fixed in at.items()}
    return {**judge(answer(tasks), tasks), "by_shot": by_shot}


@torch.no_grad()
def picture(args: Args, folder: Path) -> None:
    """Functions that were not chosen: the first that their seed draws, with noise on the points alone."""
    learners: dict[str, Any] = {name: qs.load(folder / f"gaussian_process-{name}.safetensors") for name in LEARNERS}
    generator, bands = torch.Generator().manual_seed(2), []
    for shot in (4, 10):
        tasks = distribution("gaussian_process", args, shot=shot, queries=200)
        curve, kernel = dataclasses.replace(tasks, noise=0.0).draw(1, generator=generator)
        (sx, sy), (qx, qy) = qs.task(curve, 0)
        sy = sy + tasks.noise * torch.randn(sy.shape, generator=generator)
        order = qx[:, 0].argsort()
        episode = qs.Episode(qs.Labelled(sx[None], sy[None]), qs.Labelled(qx[None, order], qy[None, order]))
        answers = {"CNP": of_learner(learners["cnp"]), "attentive": of_learner(learners["attentive_np"])}
        for title, answer in {**answers, "exact posterior": exact(tasks)}.items():
            mean, deviation = (value.float()[:, 0] for value in answer(episode, kernel))
            seen, curve_x, curve_y = (sx[:, 0], sy[:, 0]), qx[order, 0], qy[order, 0]
            band = (curve_x, curve_y, mean, mean - Z * deviation, mean + Z * deviation)
            bands.append(Band(f"{title}, {shot} points", *band, torch.empty(0, len(mean)), *seen))
    FIGURE.parent.mkdir(exist_ok=True)
    draw(bands, FIGURE, interval="95 % interval", columns=3)


def main() -> None:
    """Train what is missing, judge it, add its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", action="store_true", help="draw the picture and nothing else")
    for field in dataclasses.fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    given = vars(parser.parse_args())
    only_figure = given.pop("figure")
    args = Args(**given)
    use_threads(args.threads)
    folder = Path(f"runs/neural-processes-{args.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"quickstudy": qs.__version__, "python": platform.python_version()}
    for tasks in ("gaussian_process", "sinusoid"):
        for name in LEARNERS:
            path = folder / f"{tasks}-{name}.safetensors"
            if only_figure or path.exists():
                continue
            learner, training = train(name, distribution(tasks, args), args)
            learner.eval()
            scores = everything(lambda _, learner=learner: of_learner(learner), tasks, args)
            bound = {"exact": everything(exact, tasks, args)} if tasks == "gaussian_process" else {}
            shape = {"episodes": 1000, "way": 0, "shot": [args.fewest, args.most], "queries": args.queries}
            line = {
                "learner": name,
                "tasks": tasks,
                "split": None,
                **scores,
                **bound,
                **shape,
                "transductive": False,
                "seed": 1_000_000,
                "parameters": sum(p.numel() for p in learner.parameters()),
                "training": training,
                "settings": dataclasses.asdict(args),
                "versions": {**versions, "torch": torch.__version__, "numpy": np.__version__},
                "command": " ".join(["python", f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            }
            with (RESULTS / "neural_processes.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            qs.save(learner, path)
            sys.stderr.write(json.dumps(line, indent=1) + "\n")
    picture(args, folder)


if __name__ == "__main__":
    main()
