"""The in-context transformer against its equations in slow loops."""

import pytest
import torch

import quickstudy as q
from tests.contract import CASES, one


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def plain(**sizes) -> q.InContext:
    return q.InContext(torch.nn.Identity(), features=6, width=8, heads=2, **sizes)


def labelled(labels: list[int], way: int, x: torch.Tensor | None = None) -> q.Labelled:
    return q.Labelled(torch.randn(len(labels), 6) if x is None else x, q.one_hot(torch.tensor(labels), way))


@torch.no_grad()
def test_in_context_is_its_equations():
    learner, episode = plain(layers=2), one(CASES["in context"])
    (sx, sy), (qx, _) = episode
    logits = learner.predict(learner.adapt(episode.support), qx)
    own = sy.argmax(1)
    s, u = [learner.token(x) for x in sx], [learner.token(x) for x in qx]
    for block, label in zip(learner.blocks, learner.label, strict=True):
        seen = []
        for i in range(len(s)):
            members = [s[j] for j in range(len(s)) if own[j] == own[i]]
            seen.append(s[i] + label(sum(members) / len(members)))
        context = torch.stack(seen)
        s = [block(one[None], context)[0] for one in seen]
        u = [block(one[None], context)[0] for one in u]
    for m, one_query in enumerate(u):
        query = learner.query(learner.last(one_query))
        shares = [torch.exp(query @ learner.key(learner.last(token)) / 8**0.5) for token in s]
        probability = [sum(shares[i] for i in range(len(s)) if own[i] == k) / sum(shares) for k in range(sy.shape[1])]
        torch.testing.assert_close(logits[m].softmax(-1), torch.stack(probability))


@torch.no_grad()
def test_a_class_without_support_gets_no_probability_and_any_way_is_served():
    learner = plain()
    for way in (2, 50):
        adapted = learner.adapt(labelled([0, 0, 1], way + 1))
        probability = learner.predict(adapted, torch.randn(4, 6)).softmax(-1)
        assert bool((probability[:, 2:] == 0).all())
        torch.testing.assert_close(probability.sum(-1), torch.ones(4))


@torch.no_grad()
def test_one_more_query_changes_no_other():
    learner, x = plain(), torch.randn(5, 6)
    adapted = learner.adapt(labelled([0, 1, 2], 3))
    torch.testing.assert_close(learner.predict(adapted, x)[:4], learner.predict(adapted, x[:4]))


@torch.no_grad()
def test_support_examples_look_at_one_another():
    learner, support = plain(), labelled([0, 1, 2], 3)
    other = q.Labelled(torch.cat([support.x[:2], support.x[2:] + 1]), support.y)
    assert not torch.allclose(learner.adapt(support).keys[:2], learner.adapt(other).keys[:2])


@pytest.mark.parametrize("x", [torch.zeros(4, 6), torch.ones(4, 6), 1e4 * torch.ones(4, 6)], ids=["0", "1", "large"])
def test_identical_examples_give_even_odds_and_finite_gradients(x):
    learner = plain().double()
    episode = q.Episode(labelled([0, 0, 1, 1], 3, x.double()), labelled([0], 3, x[:1].double()))
    loss = learner.meta_loss(episode)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(0.5).log().neg())
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_a_large_support_set_and_unequal_shots_give_finite_numbers():
    learner = plain()
    support = labelled([0] * 990 + [1] * 9 + [2], 3)
    loss = learner.meta_loss(q.Episode(support, labelled([2, 1], 3)))
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="a learner that tells classes apart"):
        plain().adapt(q.Labelled(torch.randn(3, 6), torch.ones(3, 1)))
    with pytest.raises(ValueError, match="does not say its out_features"):
        q.InContext(torch.nn.Identity())
    with pytest.raises(ValueError, match="layers=0; required is at least 1"):
        plain(layers=0)
    with pytest.raises(ValueError, match="a multiple of the heads"):
        q.InContext(torch.nn.Identity(), features=6, width=10, heads=4)
