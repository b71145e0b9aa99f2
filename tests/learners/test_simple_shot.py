"""SimpleShot against slow loops: centring, unit length, nearest mean, shifted views."""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.learners import SimpleShot
from quickstudy.learners.simple_shot import embed_views, mean_embedding


def test_it_is_nearest_mean_after_centring_and_normalising(generator):
    x, qx = torch.randn(6, 4, generator=generator), torch.randn(3, 4, generator=generator)
    centre = torch.randn(4, generator=generator)
    labels = [0, 0, 2, 1, 2, 2]
    learner = SimpleShot(nn.Identity(), centre=centre, scale=3.0)
    prediction = learner.answer(q.Labelled(x, q.one_hot(torch.tensor(labels), 3)), qx)
    unit = lambda v: (v - centre) / torch.linalg.norm(v - centre)  # noqa: E731
    for m, query in enumerate(qx):
        for k in range(3):
            mean = torch.stack([unit(row) for row, label in zip(x, labels, strict=True) if label == k]).mean(0)
            torch.testing.assert_close(prediction[m, k], -3.0 * ((unit(query) - mean) ** 2).sum())


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """One image (h, w), pixel by pixel."""
    moved = torch.zeros_like(image)
    h, w = image.shape
    for i in range(h):
        for j in range(w):
            if 0 <= i + down < h and 0 <= j + right < w:
                moved[i + down, j + right] = image[i, j]
    return moved


def test_views_are_a_mean_over_the_image_and_its_shifts_without_wrapping(generator):
    x = torch.rand(2, 1, 5, 4, generator=generator)
    views = ((0, 1), (-2, 0), (1, -1))
    flat = nn.Flatten()
    expected = torch.stack(
        [torch.stack([im[0], *(shifted(im[0], *view) for view in views)]).mean(0).flatten() for im in x]
    )
    torch.testing.assert_close(embed_views(flat, x, views), expected)
    assert torch.equal(embed_views(flat, x), flat(x))
    assert SimpleShot(flat, views=[[0, 1]]).views == ((0, 1),)  # as JSON gives it back
    mapped = torch.func.vmap(lambda x: embed_views(flat, x, views))(torch.stack([x, x]))
    torch.testing.assert_close(mapped[1], expected)


def test_the_mean_embedding_of_batches_is_that_of_all_examples(generator):
    x = torch.rand(7, 1, 16, 16, generator=generator)
    backbone = q.Conv4(width=8, image_size=16)
    centre = mean_embedding(backbone, x.split(3), views=((1, 0),))
    torch.testing.assert_close(centre, mean_embedding(backbone, x, views=((1, 0),)))
    assert backbone.training
    assert not centre.requires_grad
    backbone.eval()
    with torch.no_grad():
        expected = torch.stack([embed_views(backbone, image[None], ((1, 0),))[0] for image in x]).mean(0)
    torch.testing.assert_close(centre, expected)


def test_the_centre_travels_with_the_learner(tmp_path, generator):
    backbone = q.Conv4(width=8, image_size=16, norm="group")
    x = torch.rand(6, 1, 16, 16, generator=generator)
    learner = SimpleShot(backbone, centre=mean_embedding(backbone, x), views=((0, 1),), scale=5.0)
    q.save(learner, tmp_path / "learner.safetensors")
    twin = q.load(tmp_path / "learner.safetensors")
    assert isinstance(twin, SimpleShot)
    assert (twin.views, twin.scale) == (((0, 1),), 5.0)
    assert learner.mean is not None
    assert twin.mean is not None
    assert torch.equal(learner.mean, twin.mean)
    assert learner.double().mean.dtype == torch.float64
    support = q.Labelled(x, q.one_hot(torch.tensor([0, 0, 1, 1, 2, 2]), 3))
    assert torch.equal(learner.float().eval().answer(support, x), twin.answer(support, x))


def test_features_without_length_stay_finite():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return x * self.weight

    learner = SimpleShot(Scaled())
    support = q.Labelled(torch.ones(2, 3), torch.eye(2, 3))
    prediction = learner.answer(support, torch.ones(1, 3))
    assert torch.equal(prediction[0, :2].detach(), torch.zeros(2))
    assert float(prediction.detach().softmax(-1)[0, 2]) == 0  # no support
    learner.loss(prediction, torch.eye(3)[:1]).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters())
    images = torch.ones(1000, 1, 16, 16)
    y = q.one_hot(torch.arange(1000) % 2, 2)
    learner = SimpleShot(nn.Flatten(), centre=torch.ones(256), views=((1, 1),))
    assert bool(torch.isfinite(learner.answer(q.Labelled(images, y), images[:1])).all())


def test_errors():
    for centre in ([[1.0]], [float("nan")]):
        with pytest.raises(ValueError, match=r"centre of shape.*d finite numbers.*mean_embedding"):
            SimpleShot(nn.Identity(), centre=centre)
    with pytest.raises(ValueError, match=r"scale=0.*above 0"):
        SimpleShot(nn.Identity(), scale=0)
    with pytest.raises(ValueError, match=r"views=\(1, 2\).*pairs of pixels"):
        SimpleShot(nn.Identity(), views=(1, 2))  # pyright: ignore[reportArgumentType]
    support = q.Labelled(torch.zeros(2, 3), torch.eye(2))
    with pytest.raises(ValueError, match=r"centre has 4 numbers and the features 3"):
        SimpleShot(nn.Identity(), centre=[0.0] * 4).adapt(support)
    with pytest.raises(ValueError, match=r"shape \(3,\); required are images"):
        SimpleShot(nn.Identity(), views=((0, 1),)).adapt(support)
    with pytest.raises(ValueError, match="shorten the shifts"):
        embed_views(nn.Flatten(), torch.zeros(1, 1, 4, 4), ((0, 4),))
    with pytest.raises(ValueError, match="no examples"):
        mean_embedding(nn.Identity(), [])
    with pytest.raises(ValueError, match=r"\(2, 1\).*two classes or more"):
        SimpleShot(nn.Identity()).adapt(q.Labelled(torch.zeros(2, 3), torch.ones(2, 1)))
