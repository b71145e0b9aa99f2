"""What every learner promises; ``test_contract.py`` holds each of them to it.

A new learner joins by one line in ``CASES``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import quickstudy as q
from quickstudy import learners
from quickstudy.backbones import ConvMaps, LocalDescriptors, SmallResNet
from quickstudy.episode import task


@dataclass(frozen=True)
class Case:
    """A learner, and the tasks it is tested on.

    Args:
        build: makes it, with weights drawn from the global generator that the test has seeded.
        regression: tested on sinusoids.
        images: tested on 16×16 images, otherwise on vectors of 6 numbers.
        trains: whether it has parameters.
        exact: whether its meta-gradient is the derivative of its meta-loss.
        any_way: whether it serves any number of classes.
        query_loss: whether its meta-loss is the loss of the queries after adaptation.
        own_loss: why learning is looked for in its meta-loss, not in the loss of the queries; empty where it is not.
        tasks: tested on these, where they are of no other kind.
        ordered: why its answer depends on the order of the support set; empty where it does not.
        slots: why exchanging two classes does not just exchange their logits; empty where it does.
        no_vmap: why it cannot run under vmap, as its error says; empty where it can.
    """

    build: Callable[[], q.Learner]
    regression: bool = False
    images: bool = False
    trains: bool = True
    exact: bool = True
    any_way: bool = True
    query_loss: bool = True
    own_loss: str = ""
    tasks: q.TaskDistribution | None = None
    ordered: str = ""
    slots: str = ""
    no_vmap: str = ""


def smooth() -> nn.Module:
    """A small network without kinks, so that finite differences are sharp."""
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))


class Tied(nn.Module):
    """One matrix used twice, a frozen layer and a buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.frozen, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.first.weight
        self.frozen.requires_grad_(False)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 6))

    def forward(self, x):
        return self.last(torch.tanh(self.frozen(torch.tanh(self.first(x)) * self.scale)))


class Attention(nn.Module):
    """Six numbers as three tokens of two, one attention layer."""

    def __init__(self):
        super().__init__()
        self.read, self.attend = nn.Linear(2, 4), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        tokens = self.read(x.view(-1, 3, 2))
        return self.attend(tokens, tokens, tokens, need_weights=False)[0].flatten(1)


def normed(norm: nn.Module) -> nn.Module:
    """A network with torch's own norm layer, whose affine parameters adapt."""
    return nn.Sequential(nn.Linear(6, 8), norm, nn.Tanh(), nn.Linear(8, 5))


def reads_context(in_features: int, out_features: int) -> nn.Module:
    """A small network for examples of ``in_features`` numbers and a context of 3."""
    return nn.Sequential(nn.Linear(in_features + 3, 8), nn.Tanh(), nn.Linear(8, out_features))


def conv(**arguments) -> q.Conv4:
    return q.Conv4(width=8, image_size=16, **arguments)


LEO_SMALL: dict[str, Any] = {
    "features": 5,
    "latent": 4,
    "inner_steps": 2,
    "finetune_steps": 2,
    "dropout": 0.0,
    "stochastic": False,
}


NP_SMALL: dict[str, Any] = {
    "width": 16,
    "layers": 1,
    "heads": 2,
    "self_attention": 0,
    "latent": True,
    "latent_features": 4,
    "samples": 3,
    "stochastic": False,
}

OF_NUMBERS: dict[str, Any] = {
    "regression": True,
    "query_loss": False,
    "own_loss": "a likelihood, which a wider deviation raises before the mean moves",
}


MANN_SMALL: dict[str, Any] = {"classes": 8, "features": 5, "width": 12, "slots": 10, "word": 6, "heads": 2}
SNAIL_SMALL: dict[str, Any] = {"classes": 8, "length": 11, "filters": 4, "attention": ((4, 3), (4, 3))}


def curve() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))


def tanh(in_features: int) -> nn.Module:
    """A layer without a last bias or scale, which standardised features would not show."""
    return nn.Sequential(nn.Linear(in_features, 8), nn.Tanh())


CASES: dict[str, Case] = {
    "nearest_neighbour": Case(q.NearestNeighbour, trains=False),
    "protonet": Case(lambda: q.ProtoNet(smooth())),
    "protonet, conv4": Case(lambda: q.ProtoNet(conv()), images=True),
    "protonet, conv4 group": Case(lambda: q.ProtoNet(conv(norm="group")), images=True),
    "matching_net": Case(lambda: learners.MatchingNet(smooth(), scale=5.0)),
    "matching_net, full context": Case(
        lambda: learners.MatchingNet(smooth(), full_context=True, steps=3, features=5),
        ordered="an LSTM reads the support set as a sequence",
    ),
    "matching_net, conv4": Case(lambda: learners.MatchingNet(conv(norm="group")), images=True),
    "siamese": Case(lambda: learners.Siamese(smooth(), units=7, features=5), query_loss=False),
    "siamese, mean": Case(lambda: learners.Siamese(smooth(), units=7, match="mean", features=5), query_loss=False),
    "siamese, conv4": Case(lambda: learners.Siamese(conv()), images=True, query_loss=False),
    "relation_net": Case(lambda: learners.RelationNet(smooth(), features=5)),
    "relation_net, own relation": Case(lambda: learners.RelationNet(smooth(), nn.Linear(10, 1), combine="mean")),
    "relation_net, maps": Case(lambda: learners.RelationNet(ConvMaps(width=8, image_size=16)), images=True),
    "supervised_contrastive": Case(lambda: learners.SupervisedContrastive(smooth()), query_loss=False),
    "local_matching": Case(
        lambda: learners.LocalMatching(LocalDescriptors(SmallResNet(1, 8, (8, 8)), dim=4, image_size=16), window=3),
        images=True,
        query_loss=False,
    ),
    "triplet_embedding": Case(lambda: learners.TripletEmbedding(smooth()), query_loss=False),
    "triplet_embedding, soft, nearest": Case(
        lambda: learners.TripletEmbedding(smooth(), margin=None, answer_by="nearest"), query_loss=False
    ),
    "triplet_embedding, library": Case(
        lambda: learners.TripletEmbedding(smooth(), metric_loss="MultiSimilarityLoss", miner="MultiSimilarityMiner"),
        query_loss=False,
        no_vmap="a number of triplets that depends on the data",
    ),
    "mann": Case(
        lambda: learners.MANN(smooth(), **MANN_SMALL, shuffle=False),
        query_loss=False,
        ordered="a network with a memory reads the support set as a sequence",
        slots="labels are inputs to its network, which tells them apart",
    ),
    "mann, feed-forward": Case(
        lambda: learners.MANN(smooth(), **MANN_SMALL, controller="feedforward", sharpness=False, shuffle=False),
        query_loss=False,
        ordered="a network with a memory reads the support set as a sequence",
        slots="labels are inputs to its network, which tells them apart",
    ),
    "rare_memory": Case(
        lambda: learners.RareMemory(smooth(), size=40, noise=0.0, shuffle=False),
        exact=False,
        query_loss=False,
        ordered="each example is written by a rule that looks at those before it",
    ),
    "snail": Case(
        lambda: learners.SNAIL(smooth(), features=5, **SNAIL_SMALL, shuffle=False),
        ordered="causal convolutions read the support set as a sequence",
        slots="labels are inputs to its network, which tells them apart",
    ),
    "snail, conv4 group": Case(
        lambda: learners.SNAIL(conv(norm="group"), **SNAIL_SMALL, shuffle=False),
        images=True,
        ordered="causal convolutions read the support set as a sequence",
        slots="labels are inputs to its network, which tells them apart",
    ),
    "linear_probe": Case(lambda: q.LinearProbe(smooth(), steps=5)),
    "maml, shared": Case(lambda: q.MAML(smooth(), inner_lr=0.3, inner_steps=3)),
    "maml, prototypes": Case(lambda: q.MAML(smooth(), head="prototypes", inner_lr=0.1, inner_steps=2)),
    "maml, first order": Case(lambda: q.MAML(smooth(), inner_lr=0.3, inner_steps=2, first_order=True), exact=False),
    "maml, layer norm": Case(lambda: q.MAML(normed(nn.LayerNorm(8)), inner_lr=0.5, inner_steps=3)),
    "maml, batch norm": Case(
        lambda: q.MAML(normed(nn.BatchNorm1d(8, track_running_stats=False)), inner_lr=0.5, inner_steps=3)
    ),
    "maml, group norm": Case(lambda: q.MAML(normed(nn.GroupNorm(2, 8)), inner_lr=0.5, inner_steps=3)),
    "maml, tied and frozen": Case(lambda: q.MAML(Tied(), inner_lr=0.3, inner_steps=3)),
    "maml, attention": Case(lambda: q.MAML(Attention(), inner_lr=0.3, inner_steps=2)),
    "maml, own output": Case(lambda: q.MAML(smooth(), head=None, inner_lr=0.1), any_way=False),
    "maml, conv4": Case(lambda: q.MAML(conv(pool="stride"), inner_lr=0.1, inner_steps=2), images=True),
    "maml, conv4 batch": Case(lambda: q.MAML(conv(norm="batch"), inner_lr=0.1, inner_steps=2), images=True),
    "maml, sinusoid": Case(
        lambda: q.MAML(
            nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), head=None, inner_lr=0.05, inner_steps=3
        ),
        regression=True,
    ),
    "proto_maml": Case(lambda: learners.ProtoMAML(smooth(), inner_lr=0.1, inner_steps=2)),
    "proto_maml, conv4": Case(lambda: learners.ProtoMAML(conv(norm="group"), inner_steps=1), images=True),
    "meta_sgd": Case(lambda: learners.MetaSGD(smooth())),
    "meta_sgd, shared": Case(lambda: learners.MetaSGD(smooth(), head="shared", inner_lr=0.3, inner_steps=3)),
    "meta_curvature": Case(lambda: learners.MetaCurvature(smooth(), inner_lr=0.3, inner_steps=3)),
    "meta_curvature, conv4": Case(lambda: learners.MetaCurvature(conv(pool="stride"), inner_steps=2), images=True),
    "meta_lstm": Case(lambda: learners.MetaLSTM(smooth(), inner_steps=3)),
    "meta_lstm, shared": Case(lambda: learners.MetaLSTM(smooth(), head="shared", inner_lr=0.3, inner_steps=3)),
    "meta_lstm, conv4": Case(
        lambda: learners.MetaLSTM(conv(pool="stride"), inner_steps=2, mode="first_order"), images=True, exact=False
    ),
    "meta_lstm, sinusoid": Case(
        lambda: learners.MetaLSTM(curve(), head=None, inner_lr=0.05, mode="recompute"), regression=True
    ),
    "reptile": Case(lambda: learners.Reptile(smooth(), inner_lr=0.3, inner_steps=5), exact=False, query_loss=False),
    "reptile, sinusoid": Case(
        lambda: learners.Reptile(nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), head=None, inner_lr=0.05),
        regression=True,
        exact=False,
        query_loss=False,
    ),
    "imaml": Case(
        lambda: learners.IMAML(smooth(), inner_lr=0.4, iterations=50, tolerance=1e-12, strict=True),
        no_vmap="solves each task to a tolerance of its own",
    ),
    "imaml, as in the paper": Case(
        lambda: learners.IMAML(smooth(), head="prototypes", inner_steps=5, iterations=1),
        exact=False,
        no_vmap="solves each task to a tolerance of its own",
    ),
    "cavia": Case(lambda: learners.CAVIA(reads_context(6, 5), context=3), any_way=False),
    "cavia, conv4": Case(
        lambda: learners.CAVIA(nn.Sequential(conv(in_channels=5, norm="group"), nn.Linear(8, 5)), context=4),
        images=True,
        any_way=False,
    ),
    "cavia, sinusoid": Case(lambda: learners.CAVIA(reads_context(1, 1), context=3, inner_steps=2), regression=True),
    "leo": Case(lambda: learners.LEO(smooth(), **LEO_SMALL)),
    "leo, backbone trained": Case(lambda: learners.LEO(smooth(), backbone_frozen=False, mode="recompute", **LEO_SMALL)),
    "cnp": Case(lambda: learners.CNP(width=32, layers=2), **OF_NUMBERS),
    "attentive np": Case(lambda: learners.AttentiveNP(width=16, layers=1, heads=2), **OF_NUMBERS),
    "attentive np, elbo": Case(lambda: learners.AttentiveNP(**NP_SMALL, objective="elbo"), **OF_NUMBERS),
    "attentive np, likelihood": Case(lambda: learners.AttentiveNP(**NP_SMALL, objective="likelihood"), **OF_NUMBERS),
    "in context": Case(lambda: learners.InContext(smooth(), features=5, width=16, heads=2)),
    "in context, conv4 group": Case(
        lambda: learners.InContext(conv(norm="group"), width=16, layers=1, heads=2), images=True
    ),
    "r2d2": Case(lambda: learners.R2D2(smooth())),
    "r2d2, conv4": Case(lambda: learners.R2D2(conv(norm="group")), images=True),
    "r2d2, sinusoid": Case(lambda: learners.R2D2(curve(), scale=1.0, regression=True), regression=True),
    "ridge": Case(lambda: learners.Ridge(tanh(6))),
    "ridge, one unit": Case(lambda: learners.Ridge(tanh(6), scale="together")),
    "ridge, conv4": Case(lambda: learners.Ridge(conv(norm="group")), images=True),
    "ridge, sinusoid": Case(lambda: learners.Ridge(tanh(1)), regression=True),
    "meta_opt_net": Case(lambda: learners.MetaOptNet(smooth(), c=0.5, epsilon=0.5)),
    "meta_opt_net, conv4": Case(lambda: learners.MetaOptNet(conv(norm="group")), images=True),
    "feat": Case(lambda: learners.FEAT(smooth(), features=5)),
    "feat, pre": Case(lambda: learners.FEAT(smooth(), features=5, norm="pre", temperature=2.0)),
    "feat, conv4": Case(lambda: learners.FEAT(conv(norm="group")), images=True),
    "simple_shot": Case(lambda: learners.SimpleShot(smooth(), centre=[0.1, -0.2, 0.0, 0.3, 0.1])),
    "simple_shot, views": Case(
        lambda: learners.SimpleShot(conv(), views=((0, 1), (-1, 0)), scale=5.0),
        images=True,
    ),
    "tim": Case(lambda: learners.TIM(smooth(), iterations=10, temperature=4.0)),
    "bayesian maml, sinusoid": Case(
        lambda: learners.BayesianMAML(curve(), particles=3, inner_lr=0.05, learn_noise=True),
        regression=True,
        exact=False,
        query_loss=False,
    ),
    "bayesian maml, classes": Case(
        lambda: learners.BayesianMAML(smooth(), particles=2, inner_lr=0.3, inner_steps=3),
        any_way=False,
        exact=False,
        query_loss=False,
    ),
    "bayesian maml, likelihood": Case(
        lambda: learners.BayesianMAML(smooth(), particles=2, inner_lr=0.3, inner_steps=3, objective="likelihood"),
        any_way=False,
    ),
}


def episodes(case: Case, n: int = 2, *, way: int = 5, shot: int = 2, seed: int = 0) -> q.Episode:
    """A small meta-batch of float64 tasks that suit the case."""
    generator = torch.Generator().manual_seed(seed)
    if case.tasks is not None:
        return case.tasks.sample(n, generator=generator)
    if case.regression:
        return q.Sinusoid(shot=shot * way, queries=6).sample(n, generator=generator)
    shape = (1, 16, 16) if case.images else (6,)
    x = torch.randn(90, *shape, generator=generator, dtype=torch.float64)
    tasks = q.ClassTasks(x, [i // 9 for i in range(90)], way=way, shot=shot, queries=3)
    return tasks.sample(n, generator=generator)


def one(case: Case, **arguments) -> q.Episode:
    """A single task."""
    return task(episodes(case, 1, **arguments), 0)
