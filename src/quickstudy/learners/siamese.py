"""Siamese networks for one-shot recognition: metric-based.

Gregory Koch, Richard Zemel, Ruslan Salakhutdinov. Siamese Neural Networks for One-shot Image Recognition. ICML deep
learning workshop 2015.

Learn to say whether two examples are of one class; then give a query the class of its best match. The equations have
no numbers in the paper; h1 and h2 are the embeddings of the two examples, each number of them in (0, 1):

    p(x1, x2) = σ(Σ_j α_j |h1_j − h2_j|)                                     (section 3.1)
    L(x1, x2) = −y log p(x1, x2) − (1 − y) log(1 − p(x1, x2)),  y = 1 for one class   (section 3.2)
    C* = argmax_c p(x̂, x_c)                                                  (section 4.3)
"""

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import mask_absent, require_classes
from quickstudy.learner import Learner


class Examples(NamedTuple):
    """Attributes: the support embeddings h (n, units) and labels y (n, way)."""

    h: Tensor
    y: Tensor


class Siamese(Learner[Examples]):
    """Classify by the best match under a learned test of whether two examples are of one class.

    Trained by verification: the pairs of a query with a support example, same or different. The mean loss of the same
    pairs and that of the different pairs count alike, so the many different ones do not swamp the others.

    Args:
        backbone: (n, *input) → (n, features).
        units: length of the embedding behind the backbone (a linear layer and σ).
        match: a class is as likely as its "best" support example, which favours a class with more of them, or as the
            "mean" log-odds of all.
        features: length of the backbone's output, if it has no ``out_features``.

    Raises:
        ValueError: fewer than 1 unit, another match, or an unknown length of the backbone's output.

    Differs from the paper: p has a bias, as without one two equal examples would be of one class with probability 1/2
    only. α starts below zero, so that distance speaks against one class from the start. 256 units by default in place
    of 4,096, pairs from episodes in place of a fixed set of pairs, and no L2 penalty (take it from the optimizer).
    """

    embeds_by: ClassVar[tuple[str, ...]] = ("backbone",)  # ``embed`` is the layer behind it

    def __init__(
        self,
        backbone: nn.Module,
        *,
        units: int = 256,
        match: Literal["best", "mean"] = "best",
        features: int = 0,
    ):
        super().__init__()
        d = features or getattr(backbone, "out_features", None)
        if not isinstance(d, int) or d < 1:
            raise ValueError("the backbone does not say its out_features; required is their number: pass features=")
        if units < 1 or match not in ("best", "mean"):
            raise ValueError(f"units={units}, match={match!r}; required are 1 unit or more, and match best or mean")
        self.backbone, self.units, self.match, self.features = backbone, units, match, features
        self.embed = nn.Linear(d, units)
        self.alpha = nn.Parameter(torch.full((units,), -128.0 / units))
        self.bias = nn.Parameter(torch.tensor(4.0))

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Examples:
        """The embeddings of the support set."""
        require_classes(support.y)
        return Examples(self._embed(support.x), support.y)

    def predict(self, adapted: Examples, x: Tensor) -> Tensor:
        """The log-odds that a query is of one class with the support examples of each class, (m, way)."""
        h, y = adapted
        odds = self._log_odds(self._embed(x), h)  # (m, n)
        if self.match == "mean":
            return mask_absent(odds @ y / y.sum(0).clamp(min=1), y)
        lowest = torch.finfo(odds.dtype).min
        return torch.where(y.T > 0, odds.unsqueeze(1), lowest).amax(-1)  # (m, way, n) → (m, way)

    def meta_loss(self, episode: Episode) -> Tensor:
        """The cross-entropy of verification in nats, a scalar: the mean of that of same and of different pairs."""
        support, query = episode
        require_classes(support.y)
        odds = self._log_odds(self._embed(query.x), self._embed(support.x))  # (m, n)
        same = query.y @ support.y.T
        different = query.y.sum(-1, keepdim=True) * support.y.sum(-1) - same  # a padding row belongs to no pair
        total = (same * F.softplus(-odds)).sum() / same.sum().clamp(min=1)
        return (total + (different * F.softplus(odds)).sum() / different.sum().clamp(min=1)) / 2

    def _embed(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.embed(self.backbone(x).flatten(1)))  # (n, units)

    def _log_odds(self, a: Tensor, b: Tensor) -> Tensor:
        """log p/(1 − p) = Σ_j α_j |a_j − b_j| + bias, for a (m, units) and b (n, units): (m, n)."""
        return (a.unsqueeze(1) - b).abs() @ self.alpha + self.bias
