"""The LSTM meta-learner on Omniglot.

    python recipes/meta_lstm_omniglot.py --seed 0

Trains on the 1,028 train characters of the Vinyals split with their rotations, chooses the checkpoint on the 172
validation characters, and judges on the 423 test characters, 5-way and 20-way 1-shot, 1,000 episodes each. Batch
statistics, as in the MAML protocol: transductive. An interrupted run goes on where it stopped. Appends to
benchmarks/results/omniglot.jsonl.
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
        """The same as ``quickstudy train --learner meta_lstm --tasks omniglot --split vinyals ...``."""
        return Settings(
            learner="meta_lstm",
            tasks="omniglot",
            split="vinyals",
            shot=1,
            norm="batch",
            augment=True,
            way=20,
            queries=5,
            pool="stride",
            head="prototypes",
            inner_lr=0.1,
            inner_steps=3,
            steps=6000,
            meta_batch=1,
            lr=2e-3,
            clip=10.0,
            strategy="loop",
            validate_every=1000,
            validation_way=5,
            validation_episodes=200,
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    args = Args(**vars(parser.parse_args()))
    folder = train_or_resume(args.settings(), f"runs/meta-lstm-omniglot-{args.seed}", threads=args.threads)
    record_scores(folder, "omniglot", ways=(5, 20), episodes=1000)
