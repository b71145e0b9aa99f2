"""Attention among sets against its equation in slow loops."""

import math

import pytest
import torch

from quickstudy.backbones.attention import Attention, AttentionBlock


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@torch.no_grad()
def test_attention_is_its_equation():
    attention = Attention(6, 2)
    queries, keys, values = torch.randn(4, 6), torch.randn(5, 6), torch.randn(5, 6)
    result = attention(queries, keys, values)
    for m, query in enumerate(queries):
        heads = []
        for h in range(2):
            part = slice(3 * h, 3 * h + 3)
            q = (attention.query.weight @ query)[part]
            scores = [math.exp(float(q @ (attention.key.weight @ key)[part]) / math.sqrt(3)) for key in keys]
            seen = [s / sum(scores) * (attention.value.weight @ v)[part] for s, v in zip(scores, values, strict=True)]
            heads.append(sum(seen))
        torch.testing.assert_close(result[m], attention.join.weight @ torch.cat(heads))


@torch.no_grad()
def test_weights_add_up_to_one_and_pass_over_what_is_not_there():
    attention = Attention(4, 2)
    queries, keys = torch.randn(3, 4), torch.randn(5, 4)
    there = torch.tensor([True, False, True, True, False])
    weights = attention.weights(queries, keys, there)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    assert bool((weights[..., ~there] == 0).all())
    torch.testing.assert_close(weights[..., there], attention.weights(queries, keys[there]))


@torch.no_grad()
def test_nothing_to_look_at_adds_nothing():
    attention = Attention(4, 2)
    assert torch.equal(attention(torch.randn(3, 4), torch.empty(0, 4), torch.empty(0, 4)), torch.zeros(3, 4))
    nothing = torch.zeros(5, dtype=torch.bool)
    assert bool(torch.isfinite(attention(torch.randn(3, 4), torch.randn(5, 4), torch.randn(5, 4), nothing)).all())


@torch.no_grad()
def test_the_order_of_the_context_does_not_matter():
    block, x, context = AttentionBlock(4, 2), torch.randn(3, 4), torch.randn(5, 4)
    torch.testing.assert_close(block(x, context), block(x, context[torch.tensor([3, 1, 4, 0, 2])]))


@pytest.mark.parametrize(("width", "heads"), [(6, 4), (4, 0), (0, 1)])
def test_a_width_that_does_not_divide_is_refused(width, heads):
    with pytest.raises(ValueError, match="required is a width that is a multiple of the heads"):
        Attention(width, heads)
