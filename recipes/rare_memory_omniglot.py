"""RareMemory, Conv4-64, on Omniglot (Vinyals split): 5-way and 20-way 1-shot from the same run.

    python recipes/rare_memory_omniglot.py --seed 0

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
    steps: int = 7000

    def settings(self) -> Settings:
        """The same as ``quickstudy train --learner rare_memory --tasks omniglot --split vinyals ...``."""
        return Settings(
            learner="rare_memory",
            tasks="omniglot",
            split="vinyals",
            train_part="trainval",
            way=40,
            shot=1,
            queries=4,
            augment=True,
            precision="bfloat16",
            steps=self.steps,
            lr=2e-3,
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    parser.add_argument("--steps", type=int, default=7000)
    args = Args(**vars(parser.parse_args()))
    folder = train_or_resume(args.settings(), f"runs/rare-memory-omniglot-{args.seed}", threads=args.threads)
    record_scores(folder, "omniglot", ways=(5, 20), episodes=1000)
