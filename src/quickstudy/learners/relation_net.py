"""Relation Networks: metric-based.

Flood Sung, Yongxin Yang, Li Zhang, Tao Xiang, Philip H. S. Torr, Timothy M. Hospedales. Learning to Compare: Relation
Network for Few-Shot Learning. CVPR 2018, arXiv:1711.06025.

The distance between a query and a class is learned as well: a second network reads the features of both.

    r_{i,j} = g_φ(C(f_ϕ(x_i), f_ϕ(x_j))),  i = 1, ..., way,  C = concatenation in depth   (1)
    ϕ, φ ← argmin Σ_j Σ_i (r_{i,j} − 1(y_i == y_j))²                                       (2)

With several shots the features of a class are summed first, number by number.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.backbones import ConvMaps
from quickstudy.backbones.conv4 import ConvBlock, Norm
from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, prototypes, require_classes
from quickstudy.learner import Learner, check_prediction


class ClassFeatures(NamedTuple):
    """Attributes: the features of each class (way, *shape), and the support labels y (n, way)."""

    features: Tensor
    y: Tensor


class RelationNet(Learner[ClassFeatures]):
    """Classify by a learned comparison of a query's features with those of each class.

    ``predict`` returns what stands before the last sigmoid: ``.sigmoid()`` of it is the relation score r in (0, 1).

    Args:
        backbone: (n, *input) → maps (n, c, h, w), for example ``ConvMaps``, or vectors (n, d).
        relation: (k, 2c, h, w) or (k, 2d) → (k, 1), one number before the sigmoid for each pair; the class comes first,
            the query second. None: the paper's two blocks and two linear layers on a ``ConvMaps``, and three linear
            layers on any other backbone.
        hidden: width of the last hidden layer of the own relation module.
        combine: features of a class are the "sum" of its examples' (the paper) or their "mean", with which a learner
            that was trained at one shot serves another.
        features: d, if the backbone has no ``out_features``.

    Raises:
        ValueError: another way to combine, an unknown length of the backbone's output, or maps that are too small.

    Differs from the paper: all convolutions are padded by 1, so 28×28 images end in 1×1. The loss (2) is the mean over
    the pairs, not their sum. A class without support examples has score 0. The relation module for vectors is ours.
    """

    def __init__(
        self,
        backbone: nn.Module,
        relation: nn.Module | None = None,
        *,
        hidden: int = 8,
        combine: Literal["sum", "mean"] = "sum",
        features: int = 0,
    ):
        super().__init__()
        if combine not in ("sum", "mean") or hidden < 1:
            raise ValueError(f"combine={combine!r}, hidden={hidden}; required are sum or mean, and 1 number or more")
        self.backbone, self.relation, self.hidden = backbone, relation, hidden
        self.combine, self.features = combine, features
        self.own_relation = None if relation is not None else _relation_for(backbone, hidden, features)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> ClassFeatures:
        """The features of each class: the sum, or the mean, of those of its examples."""
        require_classes(support.y)
        z, y = self.backbone(support.x), support.y
        flat = z.flatten(1)
        summed = y.T @ flat if self.combine == "sum" else prototypes(flat, y)  # (way, c·h·w)
        return ClassFeatures(summed.view(-1, *z.shape[1:]), y)

    def predict(self, adapted: ClassFeatures, x: Tensor) -> Tensor:
        """Equation (1) before the sigmoid, (m, way)."""
        a, b = adapted.features, self.backbone(x)  # (way, *shape), (m, *shape)
        if self.own_relation is not None:
            r = self.own_relation(a, b)
        else:
            assert self.relation is not None
            shape = (len(b), len(a), *a.shape[1:])
            pairs = torch.cat([a.expand(shape), b.unsqueeze(1).expand(shape)], 2)  # (m, way, 2c, h, w)
            r = self.relation(pairs.flatten(0, 1)).view(len(b), len(a))
        return mask_absent(r, adapted.y)

    def loss(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Equation (2): the mean squared error of the scores, over all classes of the queries that are not padding."""
        check_prediction(prediction, y)
        error = (torch.sigmoid(prediction) - y).square().mean(-1)  # (m,)
        return (y.sum(-1) * error).sum() / y.sum().clamp(min=1)


class ConvRelation(nn.Module):
    """The paper's relation module: two blocks with pooling, a linear layer with ReLU, and one number.

    The first convolution of two concatenated maps is the sum of one of each, taken before they are paired: several
    times fewer products than pairing first.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: int, *, norm: Norm):
        super().__init__()
        width, height, _ = shape
        if height < 4:
            raise ValueError(
                f"maps of {height}×{height} leave nothing after two poolings; required are 4×4 or more, from images "
                "of 16×16: resize them, or pass a relation module of your own"
            )
        self.first = ConvBlock(2 * width, width, norm=norm, pool=True)
        self.second = ConvBlock(width, width, norm=norm, pool=True)
        self.layers = nn.Sequential(nn.Linear(width * (height // 4) ** 2, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Maps of classes (way, c, h, w) and queries (m, c, h, w) → (m, way)."""
        of_a, of_b = self.first.weight.chunk(2, 1)
        pairs = F.conv2d(b, of_b, padding=1).unsqueeze(1) + F.conv2d(a, of_a, padding=1)  # (m, way, c, h, w)
        z = self.second(self.first.after_convolution(pairs.flatten(0, 1)))
        return self.layers(z.flatten(1)).view(len(b), len(a))


class VectorRelation(nn.Module):
    """A relation module for vectors: three linear layers on the concatenation, ReLU between them."""

    def __init__(self, d: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * d, d), nn.ReLU(), nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Vectors of classes (way, d) and queries (m, d) → (m, way)."""
        shape = (len(b), *a.shape)
        pairs = torch.cat([a.expand(shape), b.unsqueeze(1).expand(shape)], -1)  # (m, way, 2d)
        return self.layers(pairs).squeeze(-1)


def _relation_for(backbone: nn.Module, hidden: int, features: int) -> nn.Module:
    if isinstance(backbone, ConvMaps):
        return ConvRelation(backbone.out_shape, hidden, norm=backbone.norm)
    d = features or getattr(backbone, "out_features", None)
    if not isinstance(d, int) or d < 1:
        raise ValueError(
            "the backbone does not say its out_features; required is their number: pass features=, or a relation "
            "module for its maps"
        )
    return VectorRelation(d, hidden)
