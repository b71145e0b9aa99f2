"""Relation Network, four blocks of 64 maps, on Omniglot (Vinyals split): 5-way and 20-way 1-shot from the same run.

    python recipes/relation_net_omniglot.py --seed 0

The relation module has two further blocks of 64 maps and two linear layers, as in the paper.
Trains on the 1,200 train and validation characters with their rotations (nothing is selected: the last step counts),
then judges on the 423 test characters with theirs, 1,000 episodes. Inductive: population statistics at test.
An interrupted run goes on where it stopped. Appends one line for each protocol to benchmarks/results/omniglot.jsonl.
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
    steps: int = 20000

    def settings(self) -> Settings:
        """The same as ``quickstudy train --learner relation_net --tasks omniglot --split vinyals ...``."""
        return Settings(
            learner="relation_net",
            tasks="omniglot",
            split="vinyals",
            train_part=self.train_part,
            way=10,
            shot=1,
            queries=5,
            augment=True,
            precision="bfloat16",
            steps=self.steps,
            lr=1e-3,
            options={"combine": "mean"},  # the same at 1 shot, and serves others
            validation_way=20,
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    parser.add_argument("--train-part", default="trainval", help="train: judge on the validation characters alone")
    parser.add_argument("--steps", type=int, default=20000)
    args = Args(**vars(parser.parse_args()))
    name = "" if args.train_part == "trainval" else f"-{args.train_part}"
    folder = train_or_resume(args.settings(), f"runs/relation-net-omniglot{name}-{args.seed}", threads=args.threads)
    if args.train_part == "trainval":
        record_scores(folder, "omniglot", ways=(5, 20), episodes=1000)
