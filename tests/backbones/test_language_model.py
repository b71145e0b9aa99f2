"""The recurrent language model."""

import pytest
import torch

from quickstudy.backbones import BACKBONES, RecurrentLM
from quickstudy.inner import Unfused, call


@pytest.fixture(params=["lstm", "gru"])
def network(request) -> RecurrentLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RecurrentLM(7, 4, cell=request.param, dropout=0.2).double().eval()


def test_scores_are_products_with_the_embedding(network, generator):
    x = torch.randint(0, 7, (3, 5), generator=generator)
    h = network.recurrent(network.embedding.weight[x])[0]
    torch.testing.assert_close(network(x), h @ network.embedding.weight.T + network.bias)
    assert network(x).shape == (3, 5, 7)
    assert network.out_features == 7


def test_a_token_sees_what_came_before_alone(network, generator):
    x = torch.randint(0, 7, (3, 5), generator=generator)
    torch.testing.assert_close(network(x[:, :3]), network(x)[:, :3])
    other = x.clone()
    other[:, 4] = (x[:, 4] + 1) % 7
    torch.testing.assert_close(network(other)[:, :4], network(x)[:, :4])


def test_dropout_is_for_training_alone(network, generator):
    x = torch.randint(0, 7, (3, 5), generator=generator)
    assert torch.equal(network(x), network(x))
    network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(network(x), network(x))


def test_no_sentence_gives_no_score(network):
    assert network(torch.zeros(0, 5, dtype=torch.int64)).shape == (0, 5, 7)


def test_it_is_vectorised_over_tasks(network, generator):
    tensors = {name: p.detach() for name, p in network.named_parameters()}
    x = torch.randint(0, 7, (2, 3, 5), generator=generator)
    with Unfused():
        together = torch.func.vmap(lambda x: call(network, tensors, x))(x)
    torch.testing.assert_close(together, torch.stack([network(x[0]), network(x[1])]))


@pytest.mark.parametrize("x", [torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64), torch.zeros(3, 0).long()])
def test_other_tokens_are_refused(network, x):
    with pytest.raises(ValueError, match=r"required are integers \(n, length\) of 1 token or more"):
        network(x)


@pytest.mark.parametrize("arguments", [{"vocabulary": 1}, {"width": 0}, {"dropout": 1.0}])
def test_sizes_are_checked(arguments):
    with pytest.raises(ValueError, match="required are at least 2, at least 1, and 0 ≤ dropout < 1"):
        RecurrentLM(**{"vocabulary": 7, **arguments})


def test_cells_are_checked():
    with pytest.raises(ValueError, match="cell='rnn'; choose 'lstm' or 'gru'"):
        RecurrentLM(7, cell="rnn")  # pyright: ignore


def test_it_has_a_name():
    assert BACKBONES["language_model"] is RecurrentLM
