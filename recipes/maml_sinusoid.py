"""MAML on sinusoids: 10 points, 5 inner steps (or 1), a network of 2×40 units.

    python recipes/maml_sinusoid.py --seed 0
    python recipes/maml_sinusoid.py --seed 0 --inner-steps 1

Appends the mean squared error over 1,000 fresh sine waves to benchmarks/results/sinusoid.jsonl.
"""

import argparse
from dataclasses import dataclass

from result import record_scores, train_or_resume

from quickstudy.runs import Settings


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    inner_steps: int = 5

    def settings(self) -> Settings:
        """The same as ``quickstudy train --learner maml --tasks sinusoid ...``."""
        return Settings(
            learner="maml",
            tasks="sinusoid",
            backbone="mlp",
            width=40,
            shot=10,
            queries=10,
            inner_lr=0.02,
            inner_steps=self.inner_steps,
            meta_batch=25,
            steps=30_000,
            lr=1e-3,
            clip=1.0,
            validate_every=3000,
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    parser.add_argument("--inner-steps", type=int, default=5)
    args = Args(**vars(parser.parse_args()))
    name = f"runs/maml-sinusoid-{args.seed}" + ("" if args.inner_steps == 5 else f"-{args.inner_steps}-step")
    folder = train_or_resume(args.settings(), name, threads=args.threads)
    record_scores(folder, "sinusoid", ways=(0,), episodes=1000)
