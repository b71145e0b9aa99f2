"""A network whose embeddings all have one length, so that distances between them are those of directions.

The length matters where embeddings meet a head that is fitted by gradient: logits and steps grow with its square.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class UnitLength(nn.Module):
    """scale · f(x)/‖f(x)‖.

    Args:
        backbone: (n, *input) → (n, d).
        scale: the length of every embedding, above 0; zero stays zero.

    Attributes:
        out_features: those of the backbone.

    Raises:
        ValueError: a scale that is not above 0, a backbone without ``out_features``.
    """

    def __init__(self, backbone: nn.Module, *, scale: float = 1.0):
        super().__init__()
        out_features = getattr(backbone, "out_features", None)
        if not scale > 0 or not isinstance(out_features, int):
            raise ValueError(
                f"scale={scale}, out_features={out_features}; required are a scale above 0 and a backbone that says "
                "the length of its embedding as out_features"
            )
        self.backbone, self.scale, self.out_features = backbone, scale, out_features

    def forward(self, x: Tensor) -> Tensor:
        """(n, *input) → (n, out_features)."""
        return self.scale * F.normalize(self.backbone(x).flatten(1), dim=1)
