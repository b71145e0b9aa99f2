"""MAML on sinusoids: 10 points, 5 inner steps, a network of 2×40 units.

    python recipes/maml_sinusoid.py --seed 0

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
            inner_steps=5,
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
    args = Args(**vars(parser.parse_args()))
    folder = train_or_resume(args.settings(), f"runs/maml-sinusoid-{args.seed}", threads=args.threads)
    record_scores(folder, "sinusoid", ways=(0,), episodes=1000)
