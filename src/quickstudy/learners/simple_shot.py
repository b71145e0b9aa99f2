"""SimpleShot: nearest class mean on centred, normalised features; metric-based, a baseline.

Yan Wang, Wei-Lun Chao, Kilian Q. Weinberger, Laurens van der Maaten. SimpleShot: Revisiting Nearest-Neighbor
Classification for Few-Shot Learning. arXiv:1911.04623, 2019.

A backbone that was trained before is kept. Its features are centred by their mean over the classes it was trained on,
and brought to unit length; a query belongs to the nearest mean of a class.

    x̄ = 1/|D_base| Σ_{x ∈ D_base} f(x)                    the mean of the base classes
    z = (f(x) − x̄)/‖f(x) − x̄‖                             CL2N
    c_k = 1/|S_k| Σ_{x ∈ S_k} z(x),  ŷ = argmin_k ‖z − c_k‖²
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, normalised, prototypes, require_classes, squared_euclidean
from quickstudy.learner import Learner
from quickstudy.learners.protonet import Prototypes

Shifts = Sequence[tuple[int, int]]
_AT_ONCE = 32  # images: more of them in one pass leave a processor's cache, and take longer each


class SimpleShot(Learner[Prototypes]):
    """Classify by the nearest class mean among centred features of unit length.

    Args:
        backbone: (n, *input) → (n, d).
        centre: the d numbers of x̄, as ``mean_embedding`` returns them; without them features are not centred (L2N).
        views: pixel shifts (down, right) of an image; its feature is the mean over the image itself and its shifts,
            before it is centred. What a shift uncovers is 0, and what it pushes out is lost.
        scale: a logit is −scale times a squared distance, which lies in [0, 4]: a temperature for the probabilities,
            without influence on which class is the most probable.

    Raises:
        ValueError: a centre that is no list of finite numbers, shifts that are no pairs, a scale that is not above 0.

    Differs from the paper: the mean over shifts and the scale are additions. In the paper the backbone is trained by
    plain classification; any backbone will do, also one that is meta-trained through this learner.
    """

    mean: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        *,
        centre: Tensor | Sequence[float] | None = None,
        views: Shifts = (),
        scale: float = 10.0,
    ):
        super().__init__()
        values = None if centre is None else torch.as_tensor(centre, dtype=torch.get_default_dtype()).detach()
        if values is not None and (values.ndim != 1 or not bool(torch.isfinite(values).all())):
            raise ValueError(
                f"a centre of shape {tuple(values.shape)} was given; required are d finite numbers, the mean of the "
                "features: pass mean_embedding(backbone, images)"
            )
        if not scale > 0:
            raise ValueError(f"scale={scale}; required is a number above 0: larger makes probabilities sharper")
        self.backbone, self.scale, self.views = backbone, scale, _pairs(views)
        self.centre = None if values is None else tuple(values.tolist())
        self.register_buffer("mean", None if values is None else values.clone())

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Prototypes:
        """The mean c_k of each class."""
        require_classes(support.y)
        return Prototypes(prototypes(self.embed(support.x), support.y), support.y)

    def predict(self, adapted: Prototypes, x: Tensor) -> Tensor:
        """−scale·‖z − c_k‖², (m, way)."""
        return mask_absent(-self.scale * squared_euclidean(self.embed(x), adapted.centres), adapted.y)

    def embed(self, x: Tensor) -> Tensor:
        """z (n, d), of unit length; of length 0 where a feature is the centre itself."""
        z = embed_views(self.backbone, x, self.views)
        if self.mean is not None:
            if z.shape[1] != len(self.mean):
                raise ValueError(
                    f"the centre has {len(self.mean)} numbers and the features {z.shape[1]}; required is one for each: "
                    "take mean_embedding of this backbone"
                )
            z = z - self.mean
        return normalised(z)


def embed_views(backbone: nn.Module, x: Tensor, views: Shifts = ()) -> Tensor:
    """The features (n, d) of ``x``, each a mean over the image and its shifts.

    Raises:
        ValueError: shifts of examples (n, *input) that are no images (n, channels, h, w), or as long as an image.
    """
    if not views:
        return backbone(x).flatten(1)
    if x.ndim != 4 or any(abs(down) >= x.shape[2] or abs(right) >= x.shape[3] for down, right in views):
        raise ValueError(
            f"views={tuple(views)} of examples of shape {tuple(x.shape[1:])}; required are images (channels, height, "
            "width), and shifts of fewer pixels than they have: shorten the shifts, or leave views out"
        )
    # a negative padding cuts: the image moves and nothing wraps round
    shifted = [F.pad(x, (right, -right, down, -down)) for down, right in views]
    parts = torch.cat([x, *shifted]).split(_AT_ONCE)
    z = torch.cat([backbone(part).flatten(1) for part in parts])  # ((1 + views)·n, d)
    return z.unflatten(0, (1 + len(shifted), len(x))).mean(0)  # (n, d)


def mean_embedding(backbone: nn.Module, batches: Tensor | Iterable[Tensor], *, views: Shifts = ()) -> Tensor:
    """x̄, the mean feature of training examples, in evaluation mode and without gradients.

    Args:
        backbone: (n, *input) → (n, d); its mode is restored.
        batches: the examples (n, *input) that fit in one pass, or several batches of them.
        views: as the learner will be given.

    Returns:
        (d,), for ``SimpleShot(backbone, centre=...)``.

    Raises:
        ValueError: no examples.
    """
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    total, count = torch.zeros(()), 0
    try:
        with torch.no_grad():
            for x in [batches] if isinstance(batches, Tensor) else batches:
                total = total + embed_views(backbone, x, views).double().sum(0)
                count += len(x)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if count == 0:
        raise ValueError("no examples were given; required is at least one: pass the images of the training classes")
    return (total / count).to(torch.get_default_dtype())


def _pairs(views: Shifts) -> tuple[tuple[int, int], ...]:
    try:
        pairs = tuple((int(down), int(right)) for down, right in views)
    except (TypeError, ValueError) as error:
        raise ValueError(f"views={views!r}; required are pairs of pixels (down, right): ((0, 1), (1, 0))") from error
    return pairs
