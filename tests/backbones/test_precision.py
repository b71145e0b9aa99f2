"""Training in bfloat16: in training alone, with parameters and answers in float32."""

import pytest
import torch

import quickstudy as q
from quickstudy.backbones import Conv4, ConvMaps, ResNet12, ResNet18, SmallResNet
from quickstudy.learners import SupervisedContrastive

SMALL = {
    Conv4: {"width": 8, "image_size": 16},
    ConvMaps: {"width": 8, "image_size": 16},
    ResNet12: {"widths": (4, 8)},
    ResNet18: {"widths": (4, 8)},
    SmallResNet: {"stem": 4, "widths": (8,)},
}


@pytest.mark.parametrize("kind", SMALL)
def test_products_are_rounded_in_training_alone(kind, generator):
    x = torch.rand(6, 1, 16, 16, generator=generator)
    network, rounded = kind(**SMALL[kind]), kind(**SMALL[kind], precision="bfloat16")
    rounded.load_state_dict(network.state_dict())
    exact, other = network(x), rounded(x)
    assert other.dtype == torch.float32
    assert not torch.equal(exact, other)
    torch.testing.assert_close(other, exact, rtol=0.1, atol=0.1)
    other.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in rounded.parameters())
    assert torch.equal(network.eval()(x), rounded.eval()(x))


def test_it_trains(generator):
    x, y = torch.rand(40, 1, 16, 16, generator=generator), [i // 10 for i in range(40)]
    tasks = q.ClassTasks(x, y, way=4, shot=1, queries=3)
    learner = SupervisedContrastive(SmallResNet(stem=8, widths=(8, 8), precision="bfloat16"))
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    losses = [s.loss for s in q.meta_train(learner, tasks, optimizer, steps=30, meta_batch=1, generator=generator)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("kind", SMALL)
def test_another_precision_is_refused(kind):
    with pytest.raises(ValueError, match=r"precision='half'; choose among 'float32', 'bfloat16'"):
        kind(**SMALL[kind], precision="half")
