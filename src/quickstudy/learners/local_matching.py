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
support example i, its companions P(i) and its rivals R(i), those of other classes with the largest z(i)·z(r),

    L_pairs = mean_{i, p ∈ P(i)} −log( exp S(i, p) / (exp S(i, p) + Σ_{r ∈ R(i)} exp S(i, r)) )
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.backbones.local_descriptors import LocalDescriptors
from quickstudy.episode import Episode, Labelled
from quickstudy.functional import mask_absent, normalised, prototypes, require_classes
from quickstudy.learner import Learner
from quickstudy.learners.supervised_contrastive import contrastive_loss

_AT_ONCE = 32  # support examples that all queries are compared with in one product


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

    Args:
        backbone: ``LocalDescriptors``, or what gives rows of its form.
        dim: numbers of a place's descriptor.
        grid: (h, w), the places; None takes the backbone's.
        window: side of the window in which a place is looked for, in places, odd.
        scale: s, of all logits.
        companions: the most examples of an example's own class that L_pairs compares it with, in training.
        rivals: the most examples of other classes, in training.

    Raises:
        ValueError: a backbone that does not say its grid, a window that has no middle, numbers out of range.

    Differs from the sources: a window and learned weights of places (DN4 has neither), both directions of the search,
    and the cosine of whole images beside it; the descriptors of a class are not pooled, each example is searched alone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int = 64,
        grid: tuple[int, int] | None = None,
        window: int = 5,
        scale: float = 20.0,
        companions: int = 3,
        rivals: int = 10,
    ):
        super().__init__()
        places = grid or getattr(backbone, "grid", None)
        if places is None:
            raise ValueError("the backbone does not say its grid; required are its rows and columns of places: grid=")
        if window < 1 or window % 2 == 0 or min(companions, rivals, dim) < 1 or not scale > 0:
            raise ValueError(
                f"window={window}, dim={dim}, companions={companions}, rivals={rivals}, scale={scale}; required are an "
                "odd window, 1 or more of the others, and a scale above 0"
            )
        if isinstance(backbone, LocalDescriptors) and backbone.dim != dim:
            raise ValueError(f"dim={dim}, and the backbone describes a place by {backbone.dim} numbers: give the same")
        self.backbone, self.dim, self.grid, self.window = backbone, dim, grid, window
        self.scale, self.companions, self.rivals = scale, companions, rivals
        self.places: tuple[int, int] = (int(places[0]), int(places[1]))

    def embed(self, x: Tensor) -> Tensor:
        """The rows that the backbone makes of images (n, *input): z, all places, all weights."""
        return self.backbone(x).flatten(1)

    def describe(self, x: Tensor) -> Described:
        """The same, taken apart, and each place's descriptor at unit length."""
        rows = self.embed(x)
        h, w = self.places
        d = rows.shape[1] - h * w * (self.dim + 1)
        if d < 1:
            raise ValueError(
                f"the backbone gives {rows.shape[1]} numbers; required are more than {h * w} places × ({self.dim} + 1):"
                " use LocalDescriptors, and its dim and grid"
            )
        z, u, weights = rows.split([d, h * w * self.dim, h * w], 1)
        return Described(z, u.unflatten(1, (h * w, self.dim)) * (h * w) ** 0.5, weights)

    def of_rows(self) -> "LocalMatching":
        """The same learner of rows that ``embed`` made, instead of images."""
        same = {"dim": self.dim, "window": self.window, "companions": self.companions, "rivals": self.rivals}
        return LocalMatching(nn.Identity(), grid=self.places, scale=self.scale, **same)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Exemplars:
        """The examples as they are described, and the direction of each class."""
        require_classes(support.y)
        examples = self.describe(support.x)
        return Exemplars(normalised(prototypes(examples.z, support.y)), examples, support.y)

    def predict(self, adapted: Exemplars, x: Tensor) -> Tensor:
        """logit_k, (m, way)."""
        centres, examples, y = adapted
        queries = self.describe(x)
        parts = torch.arange(len(y), device=y.device).split(_AT_ONCE)
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

    def pairs_loss(self, described: Described, y: Tensor, anchors: int) -> Tensor:
        """L_pairs of the first examples.

        Args:
            described: n examples.
            y: (n, way) one-hot; an all-zero row counts for nothing.
            anchors: how many of them are compared with companions and rivals.
        """
        n, least = len(y), torch.finfo(y.dtype).min
        cosines = (described.z[:anchors] @ described.z.T).detach()  # (anchors, n)
        itself = torch.eye(n, dtype=torch.bool, device=y.device)[:anchors]
        both = (y[:anchors].sum(1, keepdim=True) > 0) & (y.sum(1) > 0) & ~itself  # neither is padding
        same = y[:anchors] @ y.T > 0
        companions = torch.where(both & same, -cosines, least).topk(min(self.companions, n), 1).indices
        rivals = torch.where(both & ~same, cosines, least).topk(min(self.rivals, n), 1).indices
        others = torch.cat([companions, rivals], 1)  # (anchors, others)
        wanted = torch.arange(others.shape[1], device=y.device) < companions.shape[1]  # a companion, not a rival
        there = both.gather(1, others) & (same.gather(1, others) == wanted)
        i = torch.arange(anchors, device=y.device).unsqueeze(1).expand_as(others).flatten()
        s = torch.where(there, self._pairs(described, i, others.flatten()).view_as(others), least)
        own, rival = s.split([companions.shape[1], rivals.shape[1]], 1)
        against = torch.logaddexp(own, rival.logsumexp(1, keepdim=True))
        counts = there[:, : companions.shape[1]]
        return torch.where(counts, against - own, 0).sum() / counts.sum().clamp(min=1)

    def _pairs(self, described: Described, i: Tensor, j: Tensor) -> Tensor:
        """S of pairs of examples i and j, (pairs,)."""
        a, b = described.of(i), described.of(j)
        products = self._near(a.u @ b.u.transpose(1, 2))  # (pairs, places, places)
        local = (a.w * products.amax(2)).sum(1) + (b.w * products.amax(1)).sum(1)
        return self.scale * ((a.z * b.z).sum(1) + local)

    def _found(self, a: Described, b: Described) -> Tensor:
        """D(a → b) + D(b → a) of all pairs, (len(a), len(b))."""
        products = self._near(torch.einsum("mpc,nqc->mnpq", a.u, b.u))
        there = torch.einsum("mp,mnp->mn", a.w, products.amax(3))
        return there + torch.einsum("nq,mnq->mn", b.w, products.amax(2))

    def _near(self, products: Tensor) -> Tensor:
        """Of places p and q (..., h·w, h·w), with the lowest number where q is not in the window around p."""
        h, w = self.places
        place, reach = torch.arange(h * w, device=products.device), self.window // 2
        row, column = place // w, place % w
        near = ((row[:, None] - row).abs() <= reach) & ((column[:, None] - column).abs() <= reach)
        return torch.where(near, products, torch.finfo(products.dtype).min)
