"""Nearest neighbour on the raw inputs: the baseline that learns nothing.

On images this is the pixel baseline of Lake et al., Human-level concept learning through probabilistic program
induction, Science 350 (2015).

    ŷ(x) = y of argmin_{(x', y') ∈ S} ‖x − x'‖²
"""

import torch
from torch import Tensor

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, require_classes, squared_euclidean
from quickstudy.learner import Learner


class NearestNeighbour(Learner[Labelled]):
    """Classify by the closest support example.

    Differs from the paper: logits are minus the squared distance to the nearest example of each class, so that a class
    can be ranked and not only chosen.
    """

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Labelled:
        """The support set itself."""
        require_classes(support.y)
        return support

    def predict(self, adapted: Labelled, x: Tensor) -> Tensor:
        """Minus the squared distance to the nearest example of each class, (m, way)."""
        distances = squared_euclidean(x.flatten(1), adapted.x.flatten(1))  # (m, n)
        others = adapted.y.T.unsqueeze(1) == 0  # (way, 1, n): examples of other classes
        nearest = torch.where(others, torch.finfo(distances.dtype).max, distances).amin(-1).T  # (m, way)
        return mask_absent(-nearest, adapted.y)
