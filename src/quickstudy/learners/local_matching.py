"""Local matching: metric-based, places of one image looked for near the same place in another.

Two drawings of the same character differ by how its parts are moved. Daniel Keysers, Thomas Deselaers, Christian
Gollan, Hermann Ney, Deformation Models for Image Recognition, IEEE TPAMI 29(8), 2007, let every pixel look for its best
counterpart within a small window (the image distortion model). Wenbin Li et al., Revisiting Local Descriptor Based
Image-to-Class Measure for Few-Shot Learning, CVPR 2019, arXiv:1903.12290 (DN4), compare learned descriptors of places
instead of pixels, without windows. Here both are joined, beside the cosine of whole images:

    D(a → b) = Σ_p w_p(a) max_{q ∈ N(p)} u_p(a)·u_q(b)         N(p): the places of a window around p
    S(a, b) = s (z(a)·z(b) + D(a → b) + D(b → a))

with the embedding z, the descriptors u_p and the weights w_p of ``LocalDescriptors``. A query belongs to class k, of
which n_k examples were given, by

    logit_k(x) = s z(x)·c_k + s/n_k Σ_{i ∈ k} (D(x → i) + D(i → x)),   c_k the direction of their mean z

which at one shot is S. Meta-training lowers the supervised contrastive loss of z over all pairs of a task, and for each
support example i, its companions P(i), those of its class with the smallest z(i)·z(p), and its rivals R(i), those of
other classes with the largest z(i)·z(r),

    L_pairs = mean_{i, p ∈ P(i)} −log( exp S(i, p) / (exp S(i, p) + Σ_{r ∈ R(i)} exp S(i, r)) )
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import mask_absent, normalised, prototypes, require_classes
from quickstudy.learner import Learner
from quickstudy.learners.supervised_contrastive import contrastive_loss

_PRODUCTS = 32 * 49 * 49  # of places with places, for each query at once


class Described(NamedTuple):
    """Attributes: of n images z (n, d), u (n, places, dim) of unit length, and weights w (n, places)."""

    z: Tensor
    u: Tensor
    w: Tensor

    def of(self, rows: Tensor | slice) -> "Described":
        """Some of the images."""
        return Described(*(part[rows] for part in self))


class Exemplars(NamedTuple):
    """Attributes: the directions of classes (way, d), the support examples, and their labels y (n, way)."""

    centres: Tensor
    examples: Described
    y: Tensor


class LocalMatching(Learner[Exemplars]):
    """Classify by how well the places of a query are found again in the examples of each class.

    Time and memory grow with the square of the number of places: made for small drawings of 7×7 places.

    Args:
        backbone: ``LocalDescriptors``, or what gives rows of its form.
        dim: numbers of a place's descriptor; None takes the backbone's.
        grid: (h, w), the places; None takes the backbone's.
        window: side of the window in which a place is looked for, in places, odd.
        scale: s, of all logits.
        companions: the size of P(i), or as many as there are.
        rivals: the size of R(i), or as many as there are.

    Raises:
        ValueError: a backbone that does not say its grid and dim, or says others; a window that has no middle, numbers
            out of range.

    Differs from the sources: a window and learned weights of places (DN4 has neither), both directions of the search,
    and the cosine of whole images beside it; the descriptors of a class are not pooled, each example is searched alone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int | None = None,
        grid: tuple[int, int] | None = None,
        window: int = 5,
        scale: float = 20.0,
        companions: int = 3,
        rivals: int = 10,
    ):
        super().__init__()
        h, w, numbers = _places(backbone, grid, dim)
        if window < 1 or window % 2 == 0 or min(companions, rivals) < 1 or not scale > 0:
            raise ValueError(
                f"window={window}, companions={companions}, rivals={rivals}, scale={scale}; required are an odd "
                "window, 1 or more of the others, and a scale above 0"
            )
        self.backbone, self.dim, self.grid, self.window = backbone, dim, grid, window
        self.scale, self.companions, self.rivals = scale, companions, rivals
        self._grid, self._dim = (h, w), numbers

    def embed(self, x: Tensor) -> Tensor:
        """z (n, d) of images (n, *input)."""
        return self.describe(x).z

    def rows(self, x: Tensor) -> Tensor:
        """All that is kept of images (n, *input), a row for each: z, places, weights."""
        return self.backbone(x).flatten(1)

    def of_rows(self) -> "LocalMatching":
        """The same learner of what ``rows`` gives, instead of images."""
        same = {"window": self.window, "companions": self.companions, "rivals": self.rivals}
        return LocalMatching(nn.Identity(), grid=self._grid, dim=self._dim, scale=self.scale, **same)

    def describe(self, x: Tensor) -> Described:
        """The rows of images (n, *input), taken apart."""
        rows, places = self.rows(x), self._grid[0] * self._grid[1]
        d = rows.shape[1] - places * (self._dim + 1)
        if d < 1:
            raise ValueError(
                f"the backbone gives {rows.shape[1]} numbers; required are more than {places} places × ({self._dim} + "
                "1): use LocalDescriptors, or its dim and grid"
            )
        z, u, weights = rows.split([d, places * self._dim, places], 1)
        return Described(z, u.unflatten(1, (places, self._dim)), weights)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Exemplars:
        """The examples as they are described, and the direction of each class."""
        require_classes(support.y)
        examples = self.describe(support.x)
        return Exemplars(normalised(prototypes(examples.z, support.y)), examples, support.y)

    def predict(self, adapted: Exemplars, x: Tensor) -> Tensor:
        """logit_k, (m, way)."""
        centres, examples, y = adapted
        queries = self.describe(x)
        at_once = max(1, _PRODUCTS // (self._grid[0] * self._grid[1]) ** 2)
        parts = torch.arange(len(y), device=y.device).split(at_once)
        found = torch.cat([self._found(queries, examples.of(part)) for part in parts], 1)  # (m, n)
        local = found @ (y / y.sum(0).clamp(min=1))
        return mask_absent(self.scale * (queries.z @ centres.T + local), y)

    def meta_loss(self, episode: Episode) -> Tensor:
        """The contrastive loss of z, and L_pairs, in nats."""
        support, query = episode
        require_classes(support.y)
        y = torch.cat([support.y, query.y])  # (n, way)
        described = self.describe(torch.cat([support.x, query.x]))
        return contrastive_loss(described.z, y, self.scale) + self.pairs_loss(described, y, len(support.y))

    def passes(self, episode: Episode) -> list[Callable[[], Any]]:
        """One: support and queries together."""
        support, query = episode
        return [lambda: self.backbone(torch.cat([support.x, query.x]))]

    def pairs_loss(self, described: Described, y: Tensor, anchors: int) -> Tensor:
        """L_pairs of the first examples.

        Args:
            described: n examples.
            y: (n, way) one-hot; an all-zero row counts for nothing.
            anchors: how many of them are compared with companions and rivals.
        """
        n, least = len(y), torch.finfo(described.z.dtype).min
        cosines = (described.z[:anchors] @ described.z.T).detach()  # (anchors, n)
        itself = torch.eye(n, dtype=torch.bool, device=y.device)[:anchors]
        real = (y[:anchors].sum(1, keepdim=True) > 0) & (y.sum(1) > 0) & ~itself  # neither is padding
        same = y[:anchors] @ y.T > 0
        far, companions = torch.where(real & same, -cosines, least).topk(min(self.companions, n), 1)
        near, rivals = torch.where(real & ~same, cosines, least).topk(min(self.rivals, n), 1)
        own = self._pairs(described, companions)  # (anchors, companions)
        rival = torch.where(near > least, self._pairs(described, rivals), least)
        against = torch.logaddexp(own, rival.logsumexp(1, keepdim=True))
        there = far > least
        return torch.where(there, against - own, 0).sum() / there.sum().clamp(min=1)

    def _pairs(self, described: Described, others: Tensor) -> Tensor:
        """S of each of the first examples with ``others`` (anchors, k) of them, (anchors, k)."""
        i = torch.arange(len(others), device=others.device).unsqueeze(1).expand_as(others).flatten()
        a, b = described.of(i), described.of(others.flatten())
        products = self._near(a.u @ b.u.transpose(1, 2))  # (pairs, places, places)
        local = (a.w * products.amax(2)).sum(1) + (b.w * products.amax(1)).sum(1)
        return (self.scale * ((a.z * b.z).sum(1) + local)).view_as(others)

    def _found(self, a: Described, b: Described) -> Tensor:
        """D(a → b) + D(b → a) of all pairs, (len(a), len(b))."""
        products = self._near(torch.einsum("mpc,nqc->mnpq", a.u, b.u))
        there = torch.einsum("mp,mnp->mn", a.w, products.amax(3))
        return there + torch.einsum("nq,mnq->mn", b.w, products.amax(2))

    def _near(self, products: Tensor) -> Tensor:
        """Of places p and q (..., h·w, h·w), with the lowest number where q is not in the window around p."""
        h, w = self._grid
        place, reach = torch.arange(h * w, device=products.device), self.window // 2
        row, column = place // w, place % w
        near = ((row[:, None] - row).abs() <= reach) & ((column[:, None] - column).abs() <= reach)
        return torch.where(near, products, torch.finfo(products.dtype).min)


def _places(backbone: nn.Module, grid: tuple[int, int] | None, dim: int | None) -> tuple[int, int, int]:
    """h, w and dim, as they are given or as the backbone says."""
    says = {"grid": getattr(backbone, "grid", None), "dim": getattr(backbone, "dim", None)}
    given = {"grid": None if grid is None else tuple(grid), "dim": dim}
    for name, value in given.items():
        if value is not None and says[name] not in (None, value):
            raise ValueError(f"{name}={value}, and the backbone has {says[name]}: leave {name} out")
    places, numbers = given["grid"] or says["grid"], given["dim"] or says["dim"]
    if places is None or numbers is None:
        raise ValueError(
            "the backbone does not say its grid and dim; required are (rows, columns) of places and the numbers of "
            "each: use LocalDescriptors, or pass grid= and dim="
        )
    if len(places) != 2 or min(*places, numbers) < 1:
        raise ValueError(f"grid={places}, dim={numbers}; required are two numbers of places and one, each at least 1")
    return int(places[0]), int(places[1]), int(numbers)
