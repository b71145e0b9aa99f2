"""TIM-ADM against slow loops, and its steps against what they are to minimise."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quickstudy as q
from quickstudy.learners import TIM
from tests.contract import CASES, one

TAU, LAMBDA, ALPHA = 4.0, 0.3, 0.8


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def learner_of(iterations: int) -> TIM:
    return TIM(nn.Identity(), iterations=iterations, temperature=TAU, support_weight=LAMBDA, entropy_weight=ALPHA)


def probability(w: Tensor, z: Tensor) -> Tensor:
    return (-TAU / 2 * torch.cdist(z, w).square()).softmax(-1)


def relaxed(w: Tensor, q_: Tensor, s: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The objective that both steps of TIM-ADM lower: (2) with q for p, and KL(q ‖ p) in between."""
    log_p, marginal = probability(w, z).log(), q_.mean(0)
    support = -(y * probability(w, s).log()).sum() / len(s)
    conditional = (q_ * (q_.log() - (1 + ALPHA) * log_p)).sum() / len(z)
    return LAMBDA * support + (marginal * marginal.log()).sum() + conditional


def loops(s: Tensor, y: Tensor, z: Tensor, iterations: int) -> Tensor:
    """Equations (1), (3) and (4), entry by entry."""
    n, m, way = len(s), len(z), y.shape[1]
    w = torch.stack([s[y[:, k] == 1].mean(0) for k in range(way)])
    for _ in range(iterations):
        p, p_query = probability(w, s), probability(w, z)
        q_ = torch.zeros(m, way)
        for i in range(m):
            for k in range(way):
                q_[i, k] = p_query[i, k] ** (1 + ALPHA) / sum(p_query[j, k] ** (1 + ALPHA) for j in range(m)) ** 0.5
            q_[i] = q_[i] / q_[i].sum()
        new = torch.zeros_like(w)
        for k in range(way):
            a, b = LAMBDA / (1 + ALPHA), n / m
            top = a * sum(y[i, k] * s[i] + p[i, k] * (w[k] - s[i]) for i in range(n))
            top = top + b * sum(q_[i, k] * z[i] + p_query[i, k] * (w[k] - z[i]) for i in range(m))
            new[k] = top / (a * y[:, k].sum() + b * q_[:, k].sum())
        w = new
    return w


def test_tim_is_its_equations():
    episode = one(CASES["tim"], way=3)
    (sx, sy), (qx, _) = episode
    learner = learner_of(4)
    adapted = learner.adapt(episode.support, qx)
    s, z = F.normalize(sx), F.normalize(qx)
    w = loops(s, sy, z, 4)
    torch.testing.assert_close(adapted.centres, w)
    torch.testing.assert_close(learner.predict(adapted, qx), probability(w, z).log())
    prototype = learner_of(0).adapt(episode.support, qx).centres
    torch.testing.assert_close(prototype, torch.stack([s[sy[:, k] == 1].mean(0) for k in range(3)]))


def test_a_step_of_the_weights_follows_the_gradient_of_the_objective_and_lowers_it():
    """(4) is a gradient step: mass_k (w_k − new w_k) = |S|/(τ(1+α)) ∇_k, mass_k the denominator of (4)."""
    episode = one(CASES["tim"], way=3)
    (sx, sy), (qx, _) = episode
    s, z = F.normalize(sx), F.normalize(qx)
    values = []
    for iterations in (0, 1, 2, 5, 20):
        w = learner_of(iterations).adapt(episode.support, qx).centres
        values.append(float(relaxed(w, learner_of(0).sharpen(z, w, sy), s, sy, z)))
    assert values == sorted(values, reverse=True)
    w, new = (learner_of(n).adapt(episode.support, qx).centres for n in (3, 4))
    q_ = learner_of(0).sharpen(z, w, sy)
    (gradient,) = torch.autograd.grad(relaxed(w.requires_grad_(True), q_, s, sy, z), w)
    mass = LAMBDA / (1 + ALPHA) * sy.sum(0) + len(s) / len(z) * q_.sum(0)
    torch.testing.assert_close(mass[:, None] * (w - new).detach(), len(s) / (TAU * (1 + ALPHA)) * gradient)


def test_queries_help_where_their_crowd_shows_the_classes():
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[1.0, 0.2], [0.2, 1.0]])
    x = means.repeat_interleave(50, 0) + 0.1 * torch.randn(100, 2, generator=generator)
    y = q.one_hot(torch.arange(2).repeat_interleave(50), 2)
    support = q.Labelled(torch.tensor([[0.5, 0.87], [-0.5, 0.87]]), torch.eye(2))  # both lie beyond the crowds
    found = [
        q.accuracy(learner.answer(support, x), y) for learner in (TIM(nn.Identity(), iterations=0), TIM(nn.Identity()))
    ]
    assert float(found[1]) > float(found[0])
    assert float(found[1]) == 1.0


def test_degenerate_tasks_stay_finite():
    y = q.one_hot(torch.tensor([0, 0, 1, -1]), 3)
    for kind in (torch.float32, torch.float64):
        for bias in (True, False):
            learner = TIM(nn.Linear(3, 4, bias=bias), iterations=10, temperature=50.0).to(kind)
            for x in (torch.zeros(4, 3), torch.ones(4, 3), 1e4 * torch.randn(4, 3)):
                support = q.Labelled(x.to(kind), y.to(kind))
                for queries in (support.x[:1], support.x):
                    prediction = learner.answer(support, queries)
                    assert float(prediction.detach().softmax(-1)[:, 2].max()) == 0
                    learner.zero_grad()
                    learner.loss(prediction, support.y[: len(queries)]).backward()
                    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters())
    x, y = torch.randn(1000, 3), q.one_hot(torch.arange(1000) % 4, 4)
    assert bool(torch.isfinite(TIM(nn.Identity(), iterations=20).answer(q.Labelled(x, y), x[:1])).all())


def test_errors():
    for arguments in ({"iterations": -1}, {"temperature": 0.0}, {"support_weight": 0.0}, {"entropy_weight": -1.0}):
        with pytest.raises(ValueError, match=r"iterations=.*the others above 0"):
            TIM(nn.Identity(), **arguments)
    with pytest.raises(ValueError, match=r"no queries.*adapt\(support, query_x\)"):
        TIM(nn.Identity()).adapt(q.Labelled(torch.zeros(2, 3), torch.eye(2)))
    with pytest.raises(ValueError, match=r"\(2, 1\).*two classes or more"):
        TIM(nn.Identity()).adapt(q.Labelled(torch.zeros(2, 3), torch.ones(2, 1)))
