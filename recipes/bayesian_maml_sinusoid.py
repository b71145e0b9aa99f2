"""Bayesian MAML on sinusoids: five particles, 10 points, a network of 2×40 units, and how often its intervals hold.

    python recipes/bayesian_maml_sinusoid.py --seed 0

The waves are free of noise; the width of the noise σ is learned with the meta-parameters, on meta-training waves alone.
Judges the mean squared error and the coverage of the 90 % interval over 1,000 fresh waves, at the 10 points of training
and at 5. Appends to benchmarks/results/sinusoid.jsonl and draws docs/figures/bayesian_maml_sinusoid.png.
"""

import argparse
import dataclasses
import json
import math
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result import RESULTS
from torch import nn

import quickstudy as qs
from quickstudy.evaluation import mean_ci95
from quickstudy.intervals import coverage
from quickstudy.learners.bayesian_maml import BayesianMAML
from quickstudy.process import use_threads
from quickstudy.report.uncertainty import Band, draw

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "bayesian_maml_sinusoid.png"
LEVEL = 0.9


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    particles: int = 5
    inner_lr: float = 0.01
    inner_steps: int = 5
    leader_steps: int = 5
    noise: float = 0.5
    steps: int = 6000
    meta_batch: int = 10
    lr: float = 1e-3
    noise_lr: float = 5e-3
    clip: float = 1.0
    shot: int = 10
    queries: int = 10


def train(args: Args) -> tuple[BayesianMAML, dict[str, Any]]:
    """The learner, and what its training cost."""
    torch.default_generator.manual_seed(args.seed)  # initial weights are drawn by torch's own layers
    network = qs.MLP(1, (40, 40), 1)
    learner = BayesianMAML(
        network,
        particles=args.particles,
        inner_lr=args.inner_lr,
        inner_steps=args.inner_steps,
        leader_steps=args.leader_steps,
        noise=args.noise,
        learn_noise=True,
    )
    weights = [p for p in learner.parameters() if p is not learner.log_noise]
    optimizer = torch.optim.Adam(
        [{"params": weights, "lr": args.lr}, {"params": [learner.log_noise], "lr": args.noise_lr}]
    )
    optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(weights, args.clip) and None)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    began, cpu = time.perf_counter(), time.process_time()
    for step in qs.meta_train(
        learner,
        qs.Sinusoid(shot=args.shot, queries=args.queries),
        optimizer,
        steps=args.steps,
        meta_batch=args.meta_batch,
        generator=torch.Generator().manual_seed(args.seed),
        meta_loss=lambda learner, waves: qs.unrolled(learner, waves, strategy="trace"),
    ):
        schedule.step()
        if step.step % (args.steps // 10) == 0:
            noise = math.exp(float(learner.log_noise.detach()))
            sys.stderr.write(f"step {step.step}: meta-loss {step.loss:.4f}, noise {noise:.3f}\n")
    cost = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return learner, {"steps": args.steps, "shot": args.shot, "seed": args.seed, **cost, "threads": args.threads}


@torch.no_grad()
def judge(learner: BayesianMAML, *, shot: int, episodes: int = 1000, queries: int = 100) -> dict[str, Any]:
    """Mean squared error, coverage and mean width of the interval over fresh waves."""
    waves, generator = qs.Sinusoid(shot=shot, queries=queries), torch.Generator().manual_seed(0)
    began, rows = time.perf_counter(), []
    for _ in range(episodes):
        support, query = qs.task(waves.sample(1, generator=generator), 0)
        adapted = learner.adapt(support)
        lower, upper = learner.interval(adapted, query.x, LEVEL)
        error = (learner.predict(adapted, query.x) - query.y).square().mean()
        rows.append(torch.stack([error, coverage(lower, upper, query.y), (upper - lower).mean()]))
    (error, ci95), (held, held_ci95), (width, _) = (mean_ci95(values) for values in torch.stack(rows).T)
    shape = {"episodes": episodes, "way": 0, "shot": shot, "queries": queries, "transductive": False, "seed": 0}
    seconds = {"seconds": round(time.perf_counter() - began, 3)}
    interval = {"level": LEVEL, "coverage": held, "coverage_ci95": held_ci95, "width": width}
    return {"mean_squared_error": error, "ci95": ci95, **shape, **seconds, **interval}


@torch.no_grad()
def picture(learner: BayesianMAML, shots: tuple[int, ...] = (10, 10, 5, 2)) -> None:
    """Waves that were not chosen: the first that their seed draws."""
    bands, generator = [], torch.Generator().manual_seed(1)
    for shot in shots:
        support, query = qs.task(qs.Sinusoid(shot=shot, queries=200).sample(1, generator=generator), 0)
        order = query.x[:, 0].argsort()
        x, y, adapted = query.x[order], query.y[order], learner.adapt(support)
        lower, upper = learner.interval(adapted, x, LEVEL)
        title = f"{shot} points: the interval holds {100 * float(coverage(lower, upper, y)):.0f} % of the curve"
        curves = (x, y, learner.predict(adapted, x), lower, upper)
        particles = learner.each(adapted, x)[..., 0]
        bands.append(Band(title, *(c[:, 0] for c in curves), particles, support.x[:, 0], support.y[:, 0]))
    FIGURE.parent.mkdir(exist_ok=True)
    draw(bands, FIGURE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    args = Args(**vars(parser.parse_args()))
    use_threads(args.threads)
    learner, training = train(args)
    versions = {"quickstudy": qs.__version__, "python": platform.python_version()}
    line = {
        "learner": "bayesian_maml",
        "tasks": "sinusoid",
        "split": None,
        **judge(learner, shot=args.shot),
        "five_points": judge(learner, shot=5),
        "noise": math.exp(float(learner.log_noise.detach())),
        "parameters": sum(p.numel() for p in learner.parameters()),
        "training": training,
        "settings": dataclasses.asdict(args),
        "versions": {**versions, "torch": torch.__version__, "numpy": np.__version__},
        "command": " ".join(["python", f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }
    with (RESULTS / "sinusoid.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    folder = Path(f"runs/bayesian-maml-sinusoid-{args.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    qs.save(learner, folder / "learner.safetensors")
    picture(learner)
    sys.stderr.write(json.dumps(line, indent=1) + "\n")
