"""CAVIA, fast context adaptation via meta-learning: gradient-based.

Luisa Zintgraf, Kyriacos Shiarlis, Vitaly Kurin, Katja Hofmann, Shimon Whiteson. Fast Context Adaptation via
Meta-Learning. ICML 2019, arXiv:1810.03642.

A task is told to the network by a short vector that is part of its input. Only this context c is learned for a task;
the network θ is shared between tasks and stays as it is.

    c_0 = 0,  c_{t+1} = c_t − α ∇_c L_support(f_θ(x, c_t))  (section 3.1, ``inner_steps`` times)
    min_θ Σ_T L_query(f_θ(x, c_T))
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from quickstudy.backbones.norm import Standardize
from quickstudy.episode import Labelled
from quickstudy.inner import SGD, AnyMode, Params, call
from quickstudy.learners.gradient_based import GradientBased


class CAVIA(GradientBased):
    """Adapt a context vector that is joined to every example.

    φ is {"context": (context,)}: the whole of what a task leaves behind, to keep, compare or plot.

    Args:
        network: reads examples whose axis 1 is longer by ``context``: vectors (n, d + context), or images
            (n, channels + context, height, width) with the context as constant channels. Its output is the prediction,
            so for classes it ends in ``way`` numbers.
        context: length of the vector, at least 1.
        inner_lr: α, at least 0. It can be large (the paper: 1), as the network learns the scale of the context.
        inner_steps, mode, inner_batch, accumulate, regression: see ``GradientBased``.

    Raises:
        ValueError: ``context`` below 1, a negative ``inner_lr``, a network that normalises each channel over the
            examples (which removes what is the same for all of them); in ``adapt``, examples that are no floating
            point numbers.

    Differs from the paper: images are told the context as constant channels; the paper's convolutional network scales
    and shifts feature maps by it (FiLM).
    """

    embeds_by: ClassVar[tuple[str, ...]] = ()  # the network reads a context beside the examples

    def __init__(
        self,
        network: nn.Module,
        *,
        context: int = 5,
        inner_lr: float = 1.0,
        inner_steps: int = 1,
        mode: AnyMode = "reverse",
        inner_batch: int = 0,
        accumulate: bool = False,
        regression: bool = False,
    ):
        if context < 1:
            raise ValueError(f"context={context}; required is at least 1 number that adapts")
        super().__init__(
            network,
            head=None,
            update_rule=SGD(inner_lr),
            inner_steps=inner_steps,
            mode=mode,
            adapts="*",
            inner_batch=inner_batch,
            accumulate=accumulate,
            regression=regression,
        )
        self.context, self.inner_lr = context, inner_lr
        _refuse_channel_statistics(network)

    def start(self, support: Labelled, buffers: Mapping[str, Tensor] | None = None) -> Params:
        """The context alone, at 0."""
        if not support.x.is_floating_point():
            raise ValueError(
                f"examples of type {support.x.dtype}; a context can be joined to floating point numbers only: convert "
                "them, or embed them first"
            )
        return {"context": support.x.new_zeros(self.context)}

    def embed(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The network's output for examples x (n, d, ...) with this context."""
        context = params["context"].view(1, -1, *[1] * (x.ndim - 2))
        context = context.expand(x.shape[0], -1, *x.shape[2:])  # (n, context, ...)
        # given its own parameters, so that ``call`` knows where it runs
        return call(self.network, dict(self.network.named_parameters()), torch.cat([x, context], dim=1))

    def like(self) -> Params:
        """The context."""
        return {"context": torch.zeros(self.context)}


def _refuse_channel_statistics(network: nn.Module) -> None:
    kinds = (Standardize, nn.modules.batchnorm._NormBase)
    found = [name for name, m in network.named_modules() if isinstance(m, kinds)]
    if found:
        raise ValueError(
            f"{found[0]!r} of the network normalises each channel over the examples, which removes a context that is "
            "the same for all of them: use group or layer norm, as in Conv4(norm='group')"
        )
