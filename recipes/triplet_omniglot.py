"""Triplet embedding, ResNet-12 of half the usual width, on Omniglot (Vinyals split): 5-way and 20-way 1-shot.

    python recipes/triplet_omniglot.py --seed 0

Batch-hard triplets among 4 images of each of 32 characters. Trains on the 1,200 train and validation characters with
their rotations (nothing is selected: the last step counts), then judges on the 423 test characters with theirs, 1,000
episodes. Inductive: population statistics at test. An interrupted run goes on where it stopped. Appends one line for
each protocol to benchmarks/results/omniglot.jsonl.
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
    train_part: str = "trainval"
    steps: int = 3000

    def settings(self) -> Settings:
        """The same as ``quickstudy train --learner triplet_embedding --tasks omniglot --split vinyals ...``."""
        return Settings(
            learner="triplet_embedding",
            tasks="omniglot",
            split="vinyals",
            train_part=self.train_part,
            way=32,
            shot=1,
            queries=3,
            augment=True,
            backbone="resnet12",
            width=32,
            precision="bfloat16",
            steps=self.steps,
            lr=1e-3,
            validation_way=20,
            options={"margin": 0.5},
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    parser.add_argument("--train-part", default="trainval", help="train: judge on the validation characters alone")
    parser.add_argument("--steps", type=int, default=3000)
    args = Args(**vars(parser.parse_args()))
    name = "" if args.train_part == "trainval" else f"-{args.train_part}"
    folder = train_or_resume(args.settings(), f"runs/triplet-omniglot{name}-{args.seed}", threads=args.threads)
    if args.train_part == "trainval":
        record_scores(folder, "omniglot", ways=(5, 20), episodes=1000)
