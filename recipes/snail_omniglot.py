"""SNAIL on the features of a ProtoNet's backbone, on Omniglot (Vinyals split): 1-shot, one run for each way.

    python recipes/protonet_omniglot.py --seed 0
    python recipes/snail_omniglot.py --way 5 --seed 0
    python recipes/snail_omniglot.py --way 20 --least 2 --queries 2 --examples 160 --steps 3500 --seed 0

The features of all characters and rotations are computed once, those of train and validation ones also after a random
affine change; they are centred and scaled by the mean and deviation over the former. SNAIL trains on these (nothing is
selected: the last step counts), and is judged on the 423 test characters with their rotations, 1,000 episodes. Tasks of
20 classes alone taught it nothing in 1,000 steps; with 2 to 20 of them the small tasks show the way.
Appends a line to benchmarks/results/omniglot.jsonl, whose cost is that of SNAIL alone.
"""

import argparse
import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from on_features import omniglot_on_features, record_on_features, train_on_features
from torch import nn

import quickstudy as qs
from quickstudy.learners import SNAIL
from quickstudy.process import keep_freed_memory, use_threads


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    way: int = 5
    least: int = 0
    """Training tasks have from this many classes on; 0: all have ``way``."""
    seed: int = 0
    threads: int = 1
    queries: int = 3
    steps: int = 5000
    examples: int = 80
    """Queries of a meta-batch, all its tasks together."""
    lr: float = 1e-3
    clip: float = 10.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    args = Args(**vars(parser.parse_args()))
    keep_freed_memory()
    use_threads(args.threads)
    data = omniglot_on_features(args.seed)
    tasks = data.tasks.replace(way=(args.least or args.way, args.way), shot=1, queries=args.queries)
    features = data.tasks.x.shape[1]
    torch.default_generator.manual_seed(args.seed)  # initial weights are drawn by torch's own layers
    learner = SNAIL(nn.Identity(), features=features, classes=args.way, length=args.way + 1)
    cost = train_on_features(
        learner,
        tasks,
        meta_batch=max(1, args.examples // (args.way * args.queries)),
        lr=args.lr,
        clip=args.clip,
        meta_loss=partial(qs.unrolled, strategy="vmap"),
        steps=args.steps,
        seed=args.seed,
    )
    folder = Path(f"runs/snail-omniglot-{args.way}-{args.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    qs.save(learner, folder / "learner.safetensors")
    shape = {"way": args.way, "shot": 1, "steps": args.steps, "seed": args.seed}
    record_on_features(
        "snail", learner, data, args.way, settings=args, training={**shape, **cost, "threads": args.threads}
    )
