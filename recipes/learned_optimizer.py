"""The update rules that ship in the package: trained on small networks, the LSTM on random quadratics as well.

    python recipes/learned_optimizer.py --rule mlp --seed 0
    python recipes/learned_optimizer.py --rule lstm --seed 0

Persistent evolution strategies over horizons of 100 steps, on sigmoid and tanh networks of one or two layers of 16 to
32 units that read digits (the training part of the images), and for the LSTM on quadratics in turn; the objective is
the mean logarithm of losses, late ones counting for more. Nothing is selected: the last step counts. An interrupted run
goes on where it stopped. ``--ship`` writes the file in the package; benchmarks/learned_optimizers.py judges what ships.
"""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

import quickstudy
from quickstudy.console import err
from quickstudy.optimizers import load_rule, save_rule
from quickstudy.process import keep_freed_memory
from quickstudy.rule_runs import train_in_folder
from quickstudy.rule_setup import RuleSettings

SHIPPED = Path(quickstudy.__file__).parent / "shipped"


PROBLEMS = {"lstm": "quadratics+mlp", "mlp": "mlp"}
STEPS = {"lstm": 2400, "mlp": 1200}


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on; 0 steps are those of ``STEPS``."""

    rule: str = "mlp"
    seed: int = 0
    steps: int = 0
    threads: int = 1

    def settings(self) -> RuleSettings:
        """The same as ``quickstudy train-optimizer --rule RULE --problems PROBLEMS --estimator pes ...``."""
        return RuleSettings(
            rule=self.rule,
            problems=PROBLEMS[self.rule],
            estimator="pes",
            n=4,
            unroll=20,
            horizon=100,
            groups=8,
            late=1.0,
            pairs=16,
            sigma=0.02,
            steps=self.steps or STEPS[self.rule],
            lr=2e-3,
            seed=self.seed,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", choices=("mlp", "lstm"), default="mlp")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ship", action="store_true", help="write the file in the package")
    arguments = vars(parser.parse_args())
    ship = arguments.pop("ship")
    args = Args(**arguments)
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    path = Path(f"runs/optimizer-{args.rule}-{args.seed}")
    folder = train_in_folder(args.settings(), path, resume=(path / "config.json").exists())
    if ship:
        facts = {
            "recipe": f"python recipes/learned_optimizer.py --rule {args.rule} --seed {args.seed} --ship",
            "settings": dataclasses.asdict(args.settings()),
            "training": folder.cost(),
            "licence": "Apache-2.0",
        }
        save_rule(load_rule(folder.rule), SHIPPED / f"optimizer_{args.rule}.safetensors", facts=facts)
        err.print(f"wrote {SHIPPED / f'optimizer_{args.rule}.safetensors'}", highlight=False, markup=False)
