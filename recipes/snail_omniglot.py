"""SNAIL, Conv4-64, on Omniglot (Vinyals split): 1-shot, one run for 5-way and one for 20-way, as in the paper.

    python recipes/snail_omniglot.py --way 5 --seed 0
    python recipes/snail_omniglot.py --way 20 --seed 0

Trains on the 1,200 train and validation characters with their rotations (nothing is selected: the last step counts),
then judges on the 423 test characters with theirs, 1,000 episodes. Inductive: population statistics at test.
An interrupted run goes on where it stopped. Appends a line to benchmarks/results/omniglot.jsonl.
"""

import argparse
from dataclasses import dataclass

from result import record_scores, train_or_resume

from quickstudy.runs import Settings


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    way: int = 5
    seed: int = 0
    threads: int = 1
    steps: int = 2000

    def settings(self) -> Settings:
        """The same as ``quickstudy train --learner snail --tasks omniglot --split vinyals ...``."""
        return Settings(
            learner="snail",
            tasks="omniglot",
            split="vinyals",
            train_part="trainval",
            way=self.way,
            shot=1,
            queries=5 if self.way == 5 else 3,
            augment=True,
            precision="bfloat16",
            options={"classes": self.way, "length": self.way + 1},
            strategy="vmap",
            steps=self.steps,
            meta_batch=max(1, 40 // self.way),
            lr=1e-3,
            clip=10.0,
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    parser.add_argument("--steps", type=int, default=2000)
    args = Args(**vars(parser.parse_args()))
    folder = train_or_resume(args.settings(), f"runs/snail-omniglot-{args.way}-{args.seed}", threads=args.threads)
    record_scores(folder, "omniglot", ways=(args.way,), episodes=1000)
