"""LEO on the features of a ProtoNet's backbone, on Omniglot (Vinyals split): 1-shot, one run for each way.

    python recipes/protonet_omniglot.py --seed 0
    python recipes/leo_omniglot.py --way 5 --meta-batch 4 --clip 1 --steps 8000 --seed 0
    python recipes/leo_omniglot.py --seed 0

The features of all characters and rotations are computed once, those of train and validation ones also after a random
affine change; they are centred and scaled by the mean and deviation over the former. LEO trains on these (nothing is
selected: the last step counts), and is judged on the 423 test characters with their rotations, 1,000 episodes.
Appends a line to benchmarks/results/omniglot.jsonl, whose cost is that of LEO alone.
"""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from on_features import omniglot_on_features, record_on_features, train_on_features
from torch import nn

import quickstudy as qs
from quickstudy.learners.leo import LEO
from quickstudy.process import keep_freed_memory, use_threads


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    way: int = 20
    shot: int = 1
    queries: int = 5
    steps: int = 15_000
    meta_batch: int = 1
    lr: float = 1e-3
    clip: float = 0.0
    """Bounds the norm of the meta-gradient; 0 is off. 5-way tasks diverge without it."""
    latent: int = 256
    inner_steps: int = 5
    dropout: float = 0.3
    kl_weight: float = 1e-4
    orthogonality_weight: float = 10.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    args = Args(**vars(parser.parse_args()))
    keep_freed_memory()
    use_threads(args.threads)
    data = omniglot_on_features(args.seed)
    tasks = data.tasks.replace(way=args.way, shot=args.shot, queries=args.queries)
    features = data.tasks.x.shape[1]
    torch.default_generator.manual_seed(args.seed)  # initial weights are drawn by torch's own layers
    learner = LEO(
        nn.Identity(),
        features=features,
        latent=args.latent,
        inner_steps=args.inner_steps,
        dropout=args.dropout,
        kl_weight=args.kl_weight,
        orthogonality_weight=args.orthogonality_weight,
    )
    cost = train_on_features(
        learner,
        tasks,
        steps=args.steps,
        meta_batch=args.meta_batch,
        lr=args.lr,
        seed=args.seed,
        clip=args.clip,
    )
    folder = Path(f"runs/leo-omniglot-{args.way}-{args.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    qs.save(learner, folder / "learner.safetensors")
    shape = {"way": args.way, "shot": args.shot, "steps": args.steps, "seed": args.seed}
    record_on_features(
        "leo", learner, data, args.way, settings=args, training={**shape, **cost, "threads": args.threads}
    )
