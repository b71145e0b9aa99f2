"""Meta-SGD with a prototype head that starts from the weights of a ProtoNet, on Omniglot (Vinyals split).

    python recipes/protonet_omniglot.py --seed 0
    python recipes/meta_sgd_long_omniglot.py --seed 0

Trains on the 1,028 train characters with their rotations, 30-way, chooses the checkpoint on the 172 validation
characters, and judges on the 423 test characters, 5-way and 20-way 1-shot, 1,000 episodes each. Batch statistics:
transductive. An interrupted run goes on where it stopped. Appends to benchmarks/results/omniglot.jsonl.
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
        """The same as ``quickstudy train --learner meta_sgd --tasks omniglot --split vinyals ...``."""
        return Settings(
            learner="meta_sgd",
            tasks="omniglot",
            split="vinyals",
            shot=1,
            norm="batch",
            augment=True,
            way=30,
            queries=5,
            head="prototypes",
            inner_lr=0.1,
            inner_steps=1,
            steps=4500,
            meta_batch=1,
            lr=7e-4,
            clip=10.0,
            strategy="loop",
            validate_every=500,
            validation_way=20,
            validation_episodes=100,
            init="runs/protonet-omniglot-0",
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    args = Args(**vars(parser.parse_args()))
    folder = train_or_resume(args.settings(), f"runs/meta-sgd-long-omniglot-{args.seed}", threads=args.threads)
    record_scores(folder, "omniglot", ways=(5, 20), episodes=1000)
