"""The two baselines on Omniglot (Vinyals split): nearest neighbour on pixels, and a linear probe.

    python recipes/baselines_omniglot.py --seed 0

The backbone of the probe (Conv4-64) is trained by plain classification of the 4,112 train classes, and its checkpoint
chosen on the validation characters. 1,000 episodes each; appends to benchmarks/results/omniglot.jsonl.
"""

import argparse
from dataclasses import dataclass

from result import record_fixed, record_scores, train_or_resume

from quickstudy import NearestNeighbour
from quickstudy.runs import Settings


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1

    def settings(self) -> Settings:
        """The same as ``quickstudy train --learner linear_probe --tasks omniglot --split vinyals ...``."""
        return Settings(
            learner="linear_probe",
            tasks="omniglot",
            split="vinyals",
            way=20,
            queries=8,
            augment=True,
            steps=5000,
            lr=2e-3,
            validate_every=1250,
            validation_episodes=100,
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    args = Args(**vars(parser.parse_args()))
    record_fixed(NearestNeighbour(), "nearest_neighbour", args.settings(), "omniglot", ways=(5, 20), episodes=1000)
    folder = train_or_resume(args.settings(), f"runs/linear-probe-omniglot-{args.seed}", threads=args.threads)
    record_scores(folder, "omniglot", ways=(5, 20), episodes=1000)
