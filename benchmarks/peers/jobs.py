"""What is measured: problems, their tasks, and the candidates of each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

import quickstudy as qs
from peers.networks import Recurrent, StockConv4, StockMLP, Transformer, our_conv4_name
from peers.ours import STRATEGIES, Ours
from peers.plain import FuncVmap, PlainLoop
from peers.problem import EXACT, Problem, Step, Variant
from peers.with_higher import Higher
from peers.with_jax import JaxMLP
from peers.with_torchopt import TorchOptFunctional, TorchOptMeta
from quickstudy.backbones import WithLinear

PLAIN = "plain PyTorch loop"
MODES = ("reverse", "recompute", "first_order", "truncated", "implicit")
_NEEDS = {Higher: "higher", TorchOptMeta: "torchopt", TorchOptFunctional: "torchopt", JaxMLP: "jax"}
_TASK_BY_TASK = ("loop", "threads")


@dataclass(frozen=True)
class Candidate:
    """One way to compute a meta-gradient.

    Args:
        name: in the table.
        build: (problem, dtype, device) → step.
        variant: what it computes, which its errors are measured against.
        package: that must be installed, if any.
        task_by_task: a meta-batch of one task runs the same operators as a whole one.
        against: the candidate that is the natural comparison besides the plain loop.
    """

    name: str
    build: Callable[[Problem, torch.dtype, torch.device], Step]
    variant: Variant = EXACT
    package: str = ""
    task_by_task: bool = True
    against: str = ""


@dataclass(frozen=True)
class Job:
    """A problem with its tasks and candidates.

    Args:
        name: in the stored lines.
        title: for the table.
        problem: what is computed.
        tasks: where meta-batches come from.
        meta_batch: tasks in one.
        candidates: the first is the plain loop.
        repeats: timed meta-steps of each, unless the command says otherwise.
    """

    name: str
    title: str
    problem: Problem
    tasks: Callable[[], qs.TaskDistribution]
    meta_batch: int
    repeats: int
    candidates: list[Candidate] = field(default_factory=list)


def mlp(quick: bool) -> Job:
    """Sinusoids and a small multilayer perceptron: dispatch is everything."""
    width = 8 if quick else 40
    problem = Problem(
        lambda: StockMLP(width),
        lambda: (qs.MLP(1, (width, width), 1), None),
        lambda name: "network.layers." + name.replace("first", "0").replace("second", "2").replace("linear", "4"),
        inner_lr=0.02,
        inner_steps=2 if quick else 5,
        regression=True,
    )
    n = 3 if quick else 25
    title = f"sinusoid, 1-{width}-{width}-1, 10 shots, {n} tasks, {problem.inner_steps} inner steps"
    peers = [peer("higher", Higher), *torchopt(), peer("torch.func vmap", FuncVmap), peer("JAX jit(vmap)", JaxMLP)]
    return Job("mlp", title, problem, partial(qs.Sinusoid, shot=10), n, 30, [plain(), *peers, *strategies()])


def conv4(quick: bool) -> Job:
    """Images and Conv4: layout, memory traffic and convolutions are everything."""
    width, size, n, queries = conv4_sizes(quick)
    problem = Problem(
        lambda: StockConv4(width, size),
        lambda: (WithLinear(qs.Conv4(width=width, image_size=size, norm="batch"), 5), None),
        lambda name: f"network.{our_conv4_name(name)}",
        inner_lr=0.4,
        inner_steps=2 if quick else 5,
    )
    title = conv4_title(width, queries, n, problem)
    peers = [peer("higher", Higher), *torchopt(), peer("torch.func vmap", FuncVmap)]
    return Job("conv4", title, problem, partial(images, size, queries), n, 7, [plain(), *peers, *strategies()])


def modes(quick: bool) -> Job:
    """Conv4 with the shared head: exact MAML, the same in bounded memory, first order, and ANIL."""
    width, size, n, queries = conv4_sizes(quick)
    problem = Problem(
        lambda: StockConv4(width, size),
        lambda: (qs.Conv4(width=width, image_size=size, norm="batch"), "shared"),
        lambda name: None if name.startswith("linear.") else our_conv4_name(name).replace("backbone", "network"),
        inner_lr=0.4,
        inner_steps=2 if quick else 5,
        zero_head=True,
    )
    kinds = {
        "MAML": EXACT,
        "MAML, recompute": Variant("recompute"),
        "MAML, first order": Variant("first_order"),
        "ANIL": Variant(head_only=True),
    }
    found = [plain()]
    for strategy in ("loop", "auto"):
        for kind, variant in kinds.items():
            against = "" if kind == "MAML" else f"quickstudy, MAML, {strategy}"
            found.append(ours(strategy, variant, f"quickstudy, {kind}, {strategy}", against))
    title = conv4_title(width, queries, n, problem) + ", shared head"
    return Job("modes", title, problem, partial(images, size, queries), n, 5, found)


def networks(quick: bool) -> list[Job]:
    """Attention and recurrence: every mode by every strategy."""
    time, features, width, n = (4, 3, 8, 2) if quick else (16, 8, 64, 8)
    nets = {
        "transformer": (lambda: Transformer(features, time, width), f"transformer, 2 layers of width {width}"),
        "lstm": (lambda: Recurrent(features, width), f"LSTM, 2 layers of width {width}"),
    }
    found = []
    for name, (network, words) in nets.items():
        problem = Problem(
            network,
            lambda network=network: (network(), None),
            lambda name: f"network.{name}",
            inner_lr=0.05,
            inner_steps=2 if quick else 5,
        )
        candidates = [plain()]
        for mode in MODES:
            for strategy in STRATEGIES[:-1]:
                against = "" if mode == "reverse" else f"quickstudy, reverse, {strategy}"
                candidates.append(ours(strategy, Variant(mode), f"quickstudy, {mode}, {strategy}", against))
        title = f"{words}; sequences of {time}×{features}, 5-way 1-shot, {n} tasks, {problem.inner_steps} inner steps"
        found.append(Job(name, title, problem, partial(sequences, time, features), n, 5, candidates))
    return found


def jobs(name: str, quick: bool) -> list[Job]:
    """The jobs of that name: one, both networks, or all."""
    pair = networks(quick)
    found = {"mlp": [mlp(quick)], "conv4": [conv4(quick)], "modes": [modes(quick)], "networks": pair}
    found |= {"all": [job for some in found.values() for job in some], **{job.name: [job] for job in pair}}
    return found[name]


def plain() -> Candidate:
    """The baseline."""
    return Candidate(PLAIN, PlainLoop)


def peer(name: str, kind: type) -> Candidate:
    """Another library."""
    return Candidate(name, kind, package=_NEEDS.get(kind, ""), task_by_task=kind not in (FuncVmap, JaxMLP))


def torchopt() -> list[Candidate]:
    """Both of its interfaces."""
    return [peer("TorchOpt, MetaSGD", TorchOptMeta), peer("TorchOpt, functional", TorchOptFunctional)]


def strategies() -> list[Candidate]:
    """Exact MAML by every strategy."""
    return [ours(strategy, EXACT, f"quickstudy, {strategy}") for strategy in STRATEGIES]


def ours(strategy: str, variant: Variant, name: str, against: str = "") -> Candidate:
    """quickstudy by one strategy."""
    build = partial(Ours, strategy=strategy, variant=variant)
    return Candidate(name, build, variant, task_by_task=strategy in _TASK_BY_TASK, against=against)


def conv4_sizes(quick: bool) -> tuple[int, int, int, int]:
    """Width, image size, tasks, queries per class."""
    return (8, 16, 2, 2) if quick else (64, 28, 32, 15)


def conv4_title(width: int, queries: int, n: int, problem: Problem) -> str:
    """For the table."""
    shape = f"5-way 1-shot, {queries} queries per class, {n} tasks, {problem.inner_steps} inner steps"
    return f"Conv4-{width}, batch statistics, {shape}, inner rate {problem.inner_lr}"


def images(size: int, queries: int) -> qs.TaskDistribution:
    """Glyphs of the built-in fonts; noise where these do not fit."""
    if size == 28:
        return qs.named_tasks("glyphs", "train", way=5, shot=1, queries=queries)
    x = torch.rand(80, 1, size, size, generator=torch.Generator().manual_seed(0))
    return qs.ClassTasks(x, [i // 8 for i in range(80)], way=5, shot=1, queries=queries)


def sequences(time: int, features: int) -> qs.TaskDistribution:
    """Each class is a sequence with noise on it."""
    generator = torch.Generator().manual_seed(0)
    middles = torch.randn(20, 1, time, features, generator=generator)
    x = middles + 0.5 * torch.randn(20, 12, time, features, generator=generator)
    return qs.ClassTasks(x.flatten(0, 1), [i // 12 for i in range(240)], way=5, shot=1, queries=5)
