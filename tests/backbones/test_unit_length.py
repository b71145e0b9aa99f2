"""UnitLength: one length for all embeddings."""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.backbones import UnitLength


def test_every_embedding_has_the_length_and_direction(generator):
    inner = q.MLP(4, (8,), 3)
    x = torch.randn(5, 4, generator=generator)
    z = UnitLength(inner, scale=3.0)(x)
    torch.testing.assert_close(z.norm(dim=1), torch.full((5,), 3.0))
    torch.testing.assert_close(z / 3, inner(x) / inner(x).norm(dim=1, keepdim=True))
    assert UnitLength(inner).out_features == 3


def test_a_zero_embedding_stays_zero_and_has_a_gradient():
    inner = q.MLP(2, (), 2)
    x = torch.zeros(1, 2, requires_grad=True)
    nn.init.zeros_(list(inner.parameters())[-1])
    z = UnitLength(inner)(x)
    assert z.tolist() == [[0.0, 0.0]]
    z.sum().backward()
    assert bool(torch.isfinite(x.grad).all())  # pyright: ignore


@pytest.mark.parametrize(("backbone", "scale"), [(q.MLP(2, (), 2), 0.0), (nn.Linear(2, 2), -1.0), (nn.Identity(), 1.0)])
def test_what_has_no_length_is_refused(backbone, scale):
    with pytest.raises(ValueError, match="required are a scale above 0 and a backbone that says the length"):
        UnitLength(backbone, scale=scale)


def test_it_is_saved_and_loaded(tmp_path, generator):
    learner = q.ProtoNet(UnitLength(q.MLP(4, (8,), 3), scale=2.0)).eval()
    q.save(learner, tmp_path / "x.safetensors")
    x = torch.randn(5, 4, generator=generator)
    torch.testing.assert_close(q.load(tmp_path / "x.safetensors").get_submodule("backbone")(x), learner.backbone(x))
