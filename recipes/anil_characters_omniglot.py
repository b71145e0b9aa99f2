"""ANIL on the network of `characters`, on Omniglot (Vinyals split): 5-way and 20-way 1-shot, inductive.

    python recipes/characters.py --seed 0 --ship      # the network; it is in the package already
    python recipes/anil_characters_omniglot.py --seed 0

The network was trained to match drawings as wholes and by their places; the places are left out here. It is
meta-trained further through MAML with prototype head, of which the head alone adapts, by exact meta-gradients in single
precision: embeddings of one length, three inner steps. Nothing is selected: the last step counts. Population
statistics, so no query sees another. Appends to
benchmarks/results/omniglot.jsonl; the time that it names does not hold that of `characters`.
"""

import argparse
import math
import time
from dataclasses import dataclass
from functools import partial

import torch
from result import record_fixed

import quickstudy as qs
from quickstudy.backbones import SmallResNet, UnitLength
from quickstudy.console import err
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.runs import Settings


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    steps: int = 200

    def settings(self) -> Settings:
        """What a result line says of the run."""
        return Settings(
            learner="maml",
            tasks="omniglot",
            split="vinyals",
            train_part="trainval",
            way=20,
            shot=1,
            queries=5,
            augment=True,
            backbone="small_resnet",
            head="prototypes",
            adapts="head.*",
            inner_lr=0.05,
            inner_steps=3,
            strategy="loop",
            steps=self.steps,
            optimizer="adamw",
            lr=1e-4,
            init="characters",
            seed=self.seed,
        )


def learner_of(settings: Settings) -> qs.MAML:
    """MAML on a copy of the shipped network, in single precision also while it trains."""
    trained = qs.open_learner("characters").get_submodule("backbone.network")
    assert isinstance(trained, SmallResNet)
    network = SmallResNet(stem=trained.stem, widths=trained.widths)
    network.load_state_dict(trained.state_dict())
    return qs.MAML(
        UnitLength(network, scale=math.sqrt(10)),
        head="prototypes",
        adapts=settings.adapts,
        inner_lr=settings.inner_lr,
        inner_steps=settings.inner_steps,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    parser.add_argument("--steps", type=int, default=200)
    args = Args(**vars(parser.parse_args()))
    keep_freed_memory()
    use_threads(args.threads)
    settings = args.settings()
    learner, plain = learner_of(settings), settings.part(settings.train_part)
    assert isinstance(plain, qs.ClassTasks)
    tasks = plain.replace(augment=qs.RandomAffine())
    optimizer = torch.optim.AdamW(learner.parameters(), lr=settings.lr)
    generator = torch.Generator().manual_seed(args.seed)
    began, cpu_began = time.perf_counter(), time.process_time()
    loss = partial(qs.unrolled, strategy="loop")
    for step in qs.meta_train(
        learner, tasks, optimizer, steps=args.steps, meta_batch=1, generator=generator, meta_loss=loss
    ):
        if step.step % 20 == 0:
            err.print(f"step {step.step}: meta-loss {step.loss:.3f}", highlight=False)
    qs.settle_statistics(learner, plain, generator=generator)
    cost = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu_began, 1),
    }
    training = {"way": 20, "shot": 1, "steps": args.steps, "seed": args.seed, "threads": args.threads, **cost}
    record_fixed(learner, "maml", settings, "omniglot", ways=(5, 20), episodes=1000, training=training)
