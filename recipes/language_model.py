"""A language model with memory on domains it has not seen: LSTM and GRU, 0, 5, 20 and 100 support sentences.

    python recipes/language_model.py

The ten domains of CLINC150 in five folds of two related ones. In each fold the network is trained on six domains, and
two others choose: on them λ and θ of the memory are meta-trained and the rate and steps of fine-tuning picked, both for
each number of support sentences. The last two are judged, draw by draw, on the same sentences for all:

    plain        the network alone
    memory       a NeuralCache on the same network
    fine-tuned   the same network after steps of Adam on the support sentences

An interrupted run goes on where it stopped. Appends a line for each fold, cell and number of support sentences to
benchmarks/results/language_model.jsonl: nats, tokens and words of every episode, from which perplexities follow.
"""

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import quickstudy as qs
from quickstudy.backbones import RecurrentLM
from quickstudy.console import err
from quickstudy.data import clinc150
from quickstudy.data.text import Vocabulary
from quickstudy.inner import TorchOptim
from quickstudy.learner import cross_entropy
from quickstudy.learners import NeuralCache
from quickstudy.process import keep_freed_memory, use_threads
from quickstudy.tasks.text import TextTasks

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "language_model.jsonl"
FOLDS = (
    ("banking", "credit_cards"),
    ("auto_and_commute", "travel"),
    ("home", "utility"),
    ("kitchen_and_dining", "work"),
    ("small_talk", "meta"),
)
FINE_TUNING = ((1e-3, 8), (3e-3, 12), (1e-2, 12), (1e-2, 30))  # rate of Adam, steps
SUPPORT = (0, 5, 20, 100)
Tally = dict[str, list[float]]


@dataclass(frozen=True)
class Args:
    """Everything that the result depends on."""

    seed: int = 0
    threads: int = 1
    vocabulary: int = 1000
    width: int = 128
    dropout: float = 0.3
    steps: int = 1000
    batch: int = 64
    lr: float = 3e-3
    length: int = 32
    memory_steps: int = 40
    queries: int = 20
    draws: int = 4


class Fold:
    """The texts of one fold, and a vocabulary of its training texts."""

    def __init__(self, data: clinc150.Clinc150, number: int, args: Args):
        self.data, self.args, self.test = data, args, FOLDS[number]
        self.validation = FOLDS[(number + 1) % len(FOLDS)]
        self.train = [d for fold in FOLDS for d in fold if d not in self.test + self.validation]
        self.vocabulary = Vocabulary.of(data.select(self.train).texts, size=args.vocabulary)

    def tasks(self, domains: Any, shot: int, queries: int, *, mixed: bool = False) -> TextTasks:
        """Episodes of these domains; ``mixed``: of all of them together."""
        part = self.data.select(domains)
        groups = ["all"] * len(part.texts) if mixed else part.domain_of_each()
        return TextTasks(part.texts, groups, self.vocabulary, shot=shot, queries=queries, length=self.args.length)

    def draws(self, domain: str, number: int) -> list[qs.Episode]:
        """Tasks of one domain with the largest support set; smaller ones are its first sentences."""
        tasks = self.tasks([domain], max(SUPPORT), self.args.queries)
        generator = torch.Generator().manual_seed(self.args.seed + 1)
        return [qs.task(tasks.sample(1, generator=generator), 0) for _ in range(number)]


def train(learner: qs.Learner, tasks: TextTasks, params: Any, steps: int, lr: float, seed: int) -> None:
    """Meta-train, with a rate that falls to 0."""
    optimizer = torch.optim.Adam(params, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    loss = partial(qs.unrolled, strategy="loop")
    generator = torch.Generator().manual_seed(seed)
    for _ in qs.meta_train(learner, tasks, optimizer, steps=steps, meta_batch=1, generator=generator, meta_loss=loss):
        schedule.step()


@torch.no_grad()
def judge(learner: qs.Learner, episodes: list[qs.Episode], support: int, vocabulary: Vocabulary) -> Tally:
    """Nats, tokens and words of the queries of each episode, after its first ``support`` sentences."""
    learner.eval()
    found: Tally = {"nats": [], "tokens": [], "words": []}
    for (sx, sy), query in episodes:
        prediction = learner.answer(qs.Labelled(sx[:support], sy[:support]), query.x)
        tokens = query.y.sum((0, 1))  # (vocabulary,)
        found["nats"].append(float(cross_entropy(prediction, query.y) * tokens.sum()))
        found["tokens"].append(float(tokens.sum()))
        found["words"].append(float(tokens[vocabulary.begins].sum()))
    return found


def nats_per_word(tally: Tally) -> float:
    """What settings are chosen by."""
    return sum(tally["nats"]) / sum(tally["words"])


def fine_tuned(network: RecurrentLM, lr: float, steps: int) -> qs.MAML:
    """The whole network adapts."""
    return qs.MAML(network, head=None, inner_steps=steps, mode="first_order", rule=TorchOptim("Adam", lr=lr))


def run(fold: Fold, cell: Any, args: Args) -> list[dict[str, Any]]:
    """Train one network, and judge it for every number of support sentences."""
    began = time.process_time()
    torch.manual_seed(args.seed)
    network = RecurrentLM(len(fold.vocabulary), args.width, cell=cell, dropout=args.dropout)
    plain = NeuralCache(network, weight=0.0)
    every = fold.tasks(fold.train, 0, args.batch, mixed=True)
    train(plain, every, network.parameters(), args.steps, args.lr, args.seed)
    cost = {"steps": args.steps, "cpu_seconds": round(time.process_time() - began, 1), "threads": args.threads}
    choosing = [episode for domain in fold.validation for episode in fold.draws(domain, 1)]
    test = {domain: fold.draws(domain, args.draws) for domain in fold.test}
    lines = []
    for support in SUPPORT:
        memory, chosen, settings = plain, plain, {}
        if support:
            network.eval().requires_grad_(False)
            memory = NeuralCache(network, weight=0.3, sharpness=0.3)
            numbers = [memory.logit_weight, memory.log_sharpness]
            tasks = fold.tasks(fold.validation, support, args.queries)
            train(memory, tasks, numbers, args.memory_steps, 0.1, args.seed)
            network.requires_grad_(True)
            scores = {
                (lr, steps): nats_per_word(judge(fine_tuned(network, lr, steps), choosing, support, fold.vocabulary))
                for lr, steps in FINE_TUNING
            }
            lr, steps = min(scores, key=lambda setting: scores[setting])
            chosen = fine_tuned(network, lr, steps)
            weight, sharpness = memory.logit_weight.detach().sigmoid(), memory.log_sharpness.detach().exp()
            settings = {"weight": float(weight), "sharpness": float(sharpness), "inner_lr": lr, "inner_steps": steps}
        candidates = {"plain": plain, "memory": memory, "fine-tuned": chosen}
        episodes = {
            domain: {name: judge(learner, drawn, support, fold.vocabulary) for name, learner in candidates.items()}
            for domain, drawn in test.items()
        }
        lines.append({"support": support, "domains": episodes, "chosen": settings, "training": cost})
    return lines


def main(args: Args) -> None:
    """All folds and cells that have no line yet."""
    keep_freed_memory()
    use_threads(args.threads)
    fixed = {"folds": FOLDS, "fine_tuning": FINE_TUNING, "support": SUPPORT}
    settings = json.loads(json.dumps({**dataclasses.asdict(args), **fixed}))  # as they are read again
    stored = [json.loads(line) for line in RESULT.read_text().splitlines()] if RESULT.exists() else []
    done = {(line["fold"], line["cell"]) for line in stored if line["settings"] == settings}
    about = {
        "settings": settings,
        "versions": {"quickstudy": qs.__version__, "torch": torch.__version__},
        "command": " ".join(["python", f"recipes/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }
    data = clinc150.load()
    for number in range(len(FOLDS)):
        fold = Fold(data, number, args)
        for cell in ("lstm", "gru"):
            if (number, cell) in done:
                continue
            facts = {"learner": "neural_cache", "tasks": "clinc150", "cell": cell, "fold": number}
            lines = [{**facts, **line} for line in run(fold, cell, args)]
            with RESULT.open("a") as file:
                for line in lines:
                    file.write(json.dumps({**line, **about}) + "\n")
            err.print(f"fold {number}, {cell}: {lines[-1]['chosen']}", highlight=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="0 takes every processor")
    main(Args(**vars(parser.parse_args())))
