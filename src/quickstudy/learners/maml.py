"""Model-Agnostic Meta-Learning: gradient-based.

Chelsea Finn, Pieter Abbeel, Sergey Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks.
ICML 2017, arXiv:1703.03400.

Learn an initialisation θ from which a few gradient steps on a task's support set generalise to its queries.

    φ_0 = θ,  φ_{t+1} = φ_t − α ∇_φ L_support(φ_t)         (section 2.2, ``inner_steps`` times)
    min_θ Σ_T L_query(φ_T(θ))                               (equation 1; its gradient is exact through all steps)
    first order: ∇_φ L_support is taken as a constant        (section 5.2)

Heads that serve any way:

    "shared": every class starts from the same vector. A vector w common to all classes adds w·z to every logit and
        cancels in the softmax and in all its derivatives, so the common start is 0 and nothing of it is left to learn
        (compare Ye & Chao, How to Train Your MAML to Excel in Few-Shot Learning, ICLR 2022, arXiv:2106.16245).
    "prototypes": w_k = 2 c_k, b_k = −‖c_k‖², the linear form of a ProtoNet (Triantafillou et al., Meta-Dataset,
        ICLR 2020, arXiv:1903.03096), through which the gradient flows as well.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, prototypes, require_classes
from quickstudy.inner import SGD, Params, unroll
from quickstudy.learner import Learner

_HEAD = ("head.weight", "head.bias")
_LABELS = "support.y"


class MAML(Learner[Params]):
    """Adapt all parameters of a network that require gradients, by gradient descent on the support set.

    Args:
        network: any module. With a head it maps (n, *input) → (n, d), and the head to (n, way); without one its own
            output is the prediction.
        head: "shared", "prototypes" (see above), or None: the network is adapted exactly as it is, which fixes the way.
        inner_lr: α.
        inner_steps: gradient steps, at least 0; with the shared head the first one moves the head alone, because all
            classes start alike.
        first_order: take inner gradients as constants.
        regression: targets of several columns are numbers (a single column always is).

    Differs from the paper: the head can be shared between classes, so one learner serves any way.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Literal["shared", "prototypes"] | None = "shared",
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        first_order: bool = False,
        regression: bool = False,
    ):
        super().__init__()
        if head not in ("shared", "prototypes", None):
            raise ValueError(f"head={head!r}; choose 'shared', 'prototypes' or None")
        if regression and head is not None:
            raise ValueError(f"head={head!r} classifies; for regression pass head=None: the network predicts by itself")
        if inner_lr < 0 or inner_steps < 0:
            raise ValueError(f"inner_lr={inner_lr}, inner_steps={inner_steps}; required is at least 0 of each")
        running = [name for name, m in network.named_modules() if getattr(m, "track_running_stats", False)]
        if running:
            raise ValueError(
                f"{running[0]!r} of the network keeps running statistics, which an inner loop cannot update; use "
                "quickstudy's Standardize and Affine, group or layer norm, or "
                "torch.func.replace_all_batch_norm_modules_(network) for batch statistics"
            )
        self.network, self.head = network, head
        self.inner_lr, self.inner_steps, self.first_order = inner_lr, inner_steps, first_order
        self.regression = regression

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Params:
        """φ: the network's parameters after ``inner_steps`` steps, and those of the head."""
        start = {f"network.{name}": p for name, p in self.network.named_parameters() if p.requires_grad}
        start |= self._first_head(support)

        def loss(params: Params) -> Tensor:
            prediction = self._forward(params, support.x)
            if prediction.shape != support.y.shape:
                raise ValueError(
                    f"the network gives {tuple(prediction.shape)} for targets of shape {tuple(support.y.shape)}; "
                    "with head=None both must be equal: head='shared' or 'prototypes' serve any number of classes"
                )
            return self.loss(prediction, support.y)

        mode = "first_order" if self.first_order else "reverse"
        adapted = unroll(SGD(self.inner_lr), loss, start, steps=self.inner_steps, mode=mode)
        return adapted if self.head is None else {**adapted, _LABELS: support.y}

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """The adapted network's output, (m, way) or (m, d)."""
        prediction = self._forward(adapted, x)
        return prediction if self.head is None else mask_absent(prediction, adapted[_LABELS])

    def _first_head(self, support: Labelled) -> Params:
        if self.head is None:
            return {}
        require_classes(support.y)
        way = support.y.shape[-1]
        if self.head == "shared":
            with torch.no_grad():  # for the length of an embedding
                z = self.network(support.x[:2]).flatten(1)  # (2, d)
            return dict(zip(_HEAD, (z.new_zeros(way, z.shape[-1]), z.new_zeros(way)), strict=True))
        z = self._embed({}, support.x)  # (n, d)
        centres = prototypes(z, support.y)
        return dict(zip(_HEAD, (2 * centres, -centres.square().sum(-1)), strict=True))

    def _forward(self, params: Params, x: Tensor) -> Tensor:
        z = self._embed(params, x)
        return z if self.head is None else z @ params["head.weight"].T + params["head.bias"]

    def _embed(self, params: Params, x: Tensor) -> Tensor:
        network = {name.removeprefix("network."): p for name, p in params.items() if name.startswith("network.")}
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            z = functional_call(self.network, network, (x,))
        return z if self.head is None else z.flatten(1)
