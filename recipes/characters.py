"""The learner ``characters`` that ships in the package: a small residual network that matches places of drawings.

    python recipes/characters.py --seed 0                                     # Omniglot, Vinyals split
    python recipes/characters.py --seed 0 --split background --steps 10000    # the 30 background alphabets alone

Trains on the 1,200 train and validation characters (or the 964 of the background alphabets) with their rotations: 64
classes with 4 drawings each a step, bent and moved at random, bfloat16 products; first by whole images, then by whole
images and their places (``LocalMatching``), with drawings that are changed less. Nothing is selected: the last step
counts. Appends lines to benchmarks/results/omniglot.jsonl and trials.jsonl. An interrupted run goes on where it
stopped. ``recipes/trust.py`` puts into the shipped file how far it can be trusted.
"""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from result import record_scores, train_or_resume

import quickstudy
from quickstudy import Learner, load
from quickstudy.packing import Packed, pack
from quickstudy.readers import ImageReader
from quickstudy.runs import Settings

SHIPPED = Path(quickstudy.__file__).parent / "shipped"
NAMES = {"vinyals": "characters", "background": "characters_background"}


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    split: str = "vinyals"
    steps: int = 15000
    matching_steps: int = 5000
    ship: bool = False
    threads: int = 1

    def matching(self, init: str) -> Settings:
        """Of the second run, which starts from the weights of the first: the same tasks, changed less."""
        return dataclasses.replace(
            self.settings(),
            learner="local_matching",
            shot=2,
            queries=2,
            augment_strength=0.7,
            steps=self.matching_steps,
            lr=1e-3,
            init=init,
        )

    def settings(self) -> Settings:
        """The same as ``quickstudy train --learner supervised_contrastive --tasks omniglot ...``."""
        vinyals = self.split == "vinyals"
        return Settings(
            learner="supervised_contrastive",
            tasks="omniglot",
            split="vinyals" if vinyals else "official",
            train_part="trainval" if vinyals else "background",
            rotations=True,
            way=64,
            shot=1,
            queries=3,
            augment=True,
            elastic=True,
            backbone="small_resnet",
            precision="bfloat16",
            strategy="loop",
            steps=self.steps,
            optimizer="adamw",
            lr=3e-3,
            weight_decay=0.05,
            seed=self.seed,
        )


def packed(path: Path) -> Learner:
    """The trained learner, its weights rounded to half precision as they are shipped."""
    return load(path).half().eval()


def card(args: Args) -> dict[str, str]:
    """What the file says of itself; NAME.md beside it says more."""
    data = {"vinyals": "1,200 characters of the Vinyals lists", "background": "964 characters of 30 alphabets"}
    return {
        "name": NAMES[args.split],
        "data": f"Omniglot (Lake, Salakhutdinov, Tenenbaum 2015), MIT licence: {data[args.split]}, with rotations",
        "recipe": f"python recipes/characters.py --seed {args.seed} --split {args.split} --steps {args.steps} "
        f"--matching-steps {args.matching_steps}",
        "seed": str(args.seed),
        "licence": "Apache-2.0",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=["vinyals", "background"], default="vinyals")
    parser.add_argument("--steps", type=int, default=15000, help="of the first run")
    parser.add_argument("--matching-steps", type=int, default=5000, help="of the second run")
    parser.add_argument("--ship", action="store_true", help="write the learner into the package")
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    args = Args(**vars(parser.parse_args()))
    first = train_or_resume(args.settings(), f"runs/characters-{args.split}-{args.seed}", threads=args.threads)
    matching = f"runs/characters-matching-{args.split}-{args.seed}"
    folder = train_or_resume(args.matching(str(first.path)), matching, threads=args.threads)
    learner, name = packed(folder.learner), NAMES[args.split]
    if args.ship:
        pack(Packed(learner, ImageReader(), card=card(args)), SHIPPED / f"{name}.safetensors")
    learner = learner.float()
    if args.split == "vinyals":
        record_scores(folder, "omniglot", ways=(5, 20), episodes=1000, learner=learner, called=name, after=first)
    else:
        record_scores(
            folder,
            "trials",
            ways=(20,),
            episodes=2000,
            learner=learner,
            called=name,
            tasks="omniglot_trials",
            after=first,
        )
