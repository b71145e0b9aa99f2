"""The update rules that ship in the package: trained on random quadratics and on small networks.

    python recipes/learned_optimizer.py --rule mlp --seed 0
    python recipes/learned_optimizer.py --rule lstm --seed 0

Persistent evolution strategies over horizons of 100 steps, on quadratics and on sigmoid and tanh networks of one or two
layers of 16 to 32 units (digits, the training part of the images), mean logarithm of losses. Nothing is selected: the
last step counts. Then judged on fresh problems of every kind against baselines that are tuned on the training part of
the same kind; a line for each kind and number of steps goes to benchmarks/results/optimizers.jsonl. An interrupted run
goes on where it stopped. ``--ship`` writes the file in the package.
"""

import argparse
import dataclasses
from pathlib import Path

from result import RESULTS, add_line

import quickstudy
from quickstudy.console import err
from quickstudy.optimizer_evaluation import evaluate_rules
from quickstudy.optimizers import load_rule, save_rule
from quickstudy.optimizers.named import PROBLEMS
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.rule_runs import train_in_folder
from quickstudy.rule_setup import RuleSettings
from quickstudy.runs import RunFolder
