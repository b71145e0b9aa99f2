"""Plain classification as a learner that does not adapt: φ = θ, a fixed set of classes.

It is how the backbone of a ``LinearProbe`` is trained: ``meta_train`` on ``AllClasses`` with cross-entropy.
"""

from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.learner import Learner


class Classifier(Learner[tuple[()]]):
    """A backbone and a linear layer over a fixed list of classes.

    Args:
        backbone: (n, *input) → (n, backbone.out_features).
        classes: the number of classes.
    """

    def __init__(self, backbone: nn.Module, classes: int):
        super().__init__()
        self.backbone, self.classes = backbone, classes
        self.head = nn.Linear(int(backbone.out_features), classes)  # pyright: ignore[reportArgumentType]

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> tuple[()]:
        """Nothing: the support set is ignored."""
        return ()

    def predict(self, adapted: tuple[()], x: Tensor) -> Tensor:
        """Logits over the fixed classes, (m, classes)."""
        return self.head(self.backbone(x))
