"""TIM on the backbone of a finished ProtoNet run, on Omniglot (Vinyals split): 5-way and 20-way 1-shot, transductive.

    python recipes/protonet_omniglot.py --seed 0
    python recipes/tim_omniglot.py --seed 0

The temperature of 120 suits features of a ProtoNet, which are positive and lie close to each other: with the paper's 15
predictions are nearly even, and the marginal entropy alone moves the prototypes.
Nothing is trained before a task; each is fitted to its support set and to its 15 queries per class. Judged on the 423
test characters with their rotations, 1,000 episodes; the setting "init" of each stored line names the run that the
backbone comes from. Appends one line for each protocol to benchmarks/results/omniglot.jsonl.
"""

import argparse
import dataclasses
from dataclasses import dataclass

from result import record_fixed

import quickstudy as qs
from quickstudy.learners.tim import TIM
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.runs import RunFolder


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    run: str = ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    parser.add_argument("--run", default="", help="a run folder; by default runs/protonet-omniglot-SEED")
    args = Args(**vars(parser.parse_args()))
    keep_freed_memory()
    use_threads(args.threads)
    folder = RunFolder(args.run or f"runs/protonet-omniglot-{args.seed}")
    learner = TIM(qs.load(folder.learner).get_submodule("backbone"), temperature=120.0, iterations=50)
    names = ("iterations", "temperature", "support_weight", "entropy_weight")
    options = {name: getattr(learner, name) for name in names}
    settings = dataclasses.replace(folder.settings(), learner="tim", init=str(folder.path), options=options)
    record_fixed(learner, "tim", settings, "omniglot", ways=(5, 20), episodes=1000)
