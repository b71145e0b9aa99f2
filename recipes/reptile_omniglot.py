"""Reptile on Omniglot: towards the weights that a task's own training leads to.

    python recipes/reptile_omniglot.py --seed 0

Trains on the 1,028 train characters of the Vinyals split with their rotations, chooses the checkpoint on the 172
validation characters, and judges on the 423 test characters, 5-way and 20-way 1-shot, 1,000 episodes each: with the
population's statistics, inductive, and with the statistics of each task's queries, transductive, as the paper reports
both. An interrupted run goes on where it stopped. Appends to benchmarks/results/omniglot.jsonl.
"""

import argparse
import dataclasses
from dataclasses import dataclass

from result import record_scores, train_or_resume

from quickstudy import Learner, load
from quickstudy.building import build
from quickstudy.runs import RunFolder, Settings


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1

    def settings(self) -> Settings:
        """The same as ``quickstudy train --learner reptile --tasks omniglot --split vinyals ...``."""
        return Settings(
            learner="reptile",
            tasks="omniglot",
            split="vinyals",
            way=20,
            shot=1,
            queries=3,
            pool="stride",
            head="prototypes",
            inner_lr=0.1,
            inner_steps=10,
            options={"train_steps": 2},
            steps=24_000,
            meta_batch=1,
            lr=3e-3,
            strategy="loop",
            validate_every=4000,
            validation_way=5,
            validation_episodes=100,
            seed=self.seed,
        )


def transductive(folder: RunFolder) -> Learner:
    """The trained learner, normalising by the statistics of whatever batch it sees."""
    settings = dataclasses.replace(folder.settings(), norm="batch")
    learner, _, _ = build(settings, settings.part("train"))
    learner.load_state_dict(dict(load(folder.learner).named_parameters()), strict=False)
    return learner.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    args = Args(**vars(parser.parse_args()))
    folder = train_or_resume(args.settings(), f"runs/reptile-omniglot-{args.seed}", threads=args.threads)
    record_scores(folder, "omniglot", ways=(5, 20), episodes=1000)
    record_scores(folder, "omniglot", ways=(5, 20), episodes=1000, learner=transductive(folder))
