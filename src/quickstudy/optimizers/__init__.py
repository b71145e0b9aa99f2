"""Learned optimizers: the problems they are trained on, the rules, and the rule as a torch optimizer."""

from quickstudy.optimizers.coordinatewise import CoordinatewiseRule
from quickstudy.optimizers.learned_optimizer import LearnedOptimizer
from quickstudy.optimizers.lstm_rule import LSTMRule
from quickstudy.optimizers.mixture import Mixture
from quickstudy.optimizers.mlp_rule import MLPRule
from quickstudy.optimizers.networks import NetworkProblems
from quickstudy.optimizers.problem import ProblemDistribution, Problems
from quickstudy.optimizers.quadratics import Quadratics
from quickstudy.optimizers.rule_file import RULES, load_rule, load_rule_with_facts, open_rule, save_rule
from quickstudy.optimizers.tuned import TunedAdam, TunedSGD

__all__ = [
    "RULES",
    "CoordinatewiseRule",
    "LSTMRule",
    "LearnedOptimizer",
    "MLPRule",
    "Mixture",
    "NetworkProblems",
    "ProblemDistribution",
    "Problems",
    "Quadratics",
    "TunedAdam",
    "TunedSGD",
    "load_rule",
    "load_rule_with_facts",
    "open_rule",
    "save_rule",
]
