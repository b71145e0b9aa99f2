"""What gradient-based learners share: a network, a head that serves any number of classes, and which of it adapts.

Heads:

    "shared": every class starts from the same vector. A vector w common to all classes adds w·z to every logit and
        cancels in the softmax and in all its derivatives, so the common start is 0 and nothing of it is left to learn
        (compare Ye & Chao, How to Train Your MAML to Excel in Few-Shot Learning, ICLR 2022, arXiv:2106.16245).
    "prototypes": w_k = 2 c_k, b_k = −‖c_k‖², the linear form of a ProtoNet (Triantafillou et al., Meta-Dataset,
        ICLR 2020, arXiv:1903.03096), through which the gradient flows as well.
    None: the network's own output is the prediction, which fixes the way.
"""

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from quickstudy.episode import Labelled
from quickstudy.functional import mask_absent, prototypes, require_classes
from quickstudy.inner import AnyMode, Params, UpdateRule, as_mode, call, unroll
from quickstudy.learner import Learner

Head = Literal["shared", "prototypes"] | None
_HEAD = ("head.weight", "head.bias")
_LABELS = "support.y"


class GradientBased(Learner[Params], ABC):
    """A network whose parameters an update rule adapts to the support set.

    φ is a dict: ``network.NAME`` for each parameter of the network that adapts, ``head.weight`` (way, d) and
    ``head.bias`` (way,), and the support labels, which tell which classes were there.

    Args:
        network: any module. With a head it maps (n, *input) → (n, d), and the head to (n, way); without one its own
            output is the prediction. Parameters that do not require gradients stay as they are.
        head: see above.
        update_rule: what steps.
        inner_steps: gradient steps, at least 0.
        mode: how the steps are differentiated, see ``unroll``.
        adapts: name patterns of the parameters that move in the inner loop, as in the network or with ``head.`` and
            ``network.`` before them; the others are meta-learned but stay as they are while a task is learned.
        inner_batch: support examples of one inner step, 0 for all of them; example j of every ``parts`` is in part j.
        accumulate: every step takes the gradient over all parts, one after the other.
        regression: targets of several columns are numbers (a single column always is).
    """

    embeds_by: ClassVar[tuple[str, ...]] = ("network",)  # ``embed`` wants the adapted parameters too

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Head,
        update_rule: UpdateRule,
        inner_steps: int,
        mode: AnyMode,
        adapts: str | Sequence[str],
        inner_batch: int,
        accumulate: bool,
        regression: bool,
    ):
        super().__init__()
        if head not in ("shared", "prototypes", None):
            raise ValueError(f"head={head!r}; choose 'shared', 'prototypes' or None")
        if regression and head is not None:
            raise ValueError(f"head={head!r} classifies; for regression pass head=None: the network predicts by itself")
        if inner_steps < 0 or inner_batch < 0:
            raise ValueError(f"inner_steps={inner_steps}, inner_batch={inner_batch}; required is at least 0 of each")
        as_mode(mode)
        _refuse_running_statistics(network)
        _refuse_sparse_gradients(network)
        self.network, self.head, self.update_rule = network, head, update_rule
        self.mode: AnyMode = mode
        self.inner_steps, self.adapts = inner_steps, adapts
        self.inner_batch, self.accumulate, self.regression = inner_batch, accumulate, regression
        self._network_moved = any(self.moves(f"network.{n}") for n, p in network.named_parameters() if p.requires_grad)
        self._check_adapts()

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Params:
        """φ: what adapts of the network after ``inner_steps`` steps, and the head."""
        return self.adapt_for(support, self.inner_steps)

    def adapt_for(self, support: Labelled, steps: int) -> Params:
        """φ after that many steps."""
        start = self.start(support)
        moving = {name: p for name, p in start.items() if self.moves(name)}
        losses = self.inner_losses(support, {name: p for name, p in start.items() if name not in moving})
        adapted = unroll(self.update_rule, losses, moving, steps=steps, mode=self.mode, accumulate=self.accumulate)
        return self.finish(start, adapted, support)

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """The adapted network's output, (m, way) or (m, d)."""
        prediction = self.forward_with(adapted, x)
        return prediction if self.head is None else mask_absent(prediction, adapted[_LABELS])

    def start(self, support: Labelled, buffers: Mapping[str, Tensor] | None = None) -> Params:
        """θ for this task: the network's parameters, and a head for its classes.

        Args:
            support: the support set.
            buffers: buffers of the network to be used in place of its own, by their full names.
        """
        network = {f"network.{name}": p for name, p in self.network.named_parameters() if p.requires_grad}
        if self._network_moved and not any(self.moves(name) for name in network):
            raise ValueError(
                "no parameter of the network requires a gradient any more, and what does not stays as it is in the "
                "inner loop too: use torch.no_grad() to predict, or freeze it before the learner is built"
            )
        return {**network, **self._first_head(support, buffers or {})}

    def moves(self, name: str) -> bool:
        """Whether the parameter of that full name adapts."""
        names = (name, name.removeprefix("network."))
        return any(fnmatchcase(n, pattern) for n in names for pattern in _patterns(self.adapts))

    def finish(self, start: Params, adapted: Params, support: Labelled) -> Params:
        """φ as ``predict`` takes it."""
        phi = {name: adapted.get(name, p) for name, p in start.items() if name in adapted or name in _HEAD}
        return phi if self.head is None else {**phi, _LABELS: support.y}

    def inner_losses(self, support: Labelled, fixed: Params) -> list[Callable[[Params], Tensor]]:
        """The inner loss in its parts.

        Args:
            support: the support set.
            fixed: parameters of the head that do not move (those of the network are in the network).
        """
        head = {name: p for name, p in fixed.items() if name in _HEAD}
        parts = _parts_of(support, self.inner_batch)
        shares = [part.y.sum() / support.y.sum() for part in parts]
        if self.regression or support.y.shape[-1] == 1:
            shares = [
                torch.full_like(share, len(part.x) / len(support.x)) for share, part in zip(shares, parts, strict=True)
            ]

        def of(part: Labelled, share: Tensor | None) -> Callable[[Params], Tensor]:
            # where the network stands still, its embedding is computed once
            z = None if self._network_moves() else self.embed({}, part.x)

            def loss(params: Params) -> Tensor:
                params = {**head, **params}
                prediction = self.forward_with(params, part.x) if z is None else self._apply_head(params, z)
                if prediction.shape != part.y.shape:
                    raise ValueError(
                        f"the network gives {tuple(prediction.shape)} for targets of shape {tuple(part.y.shape)}; with "
                        "head=None both must be equal: head='shared' or 'prototypes' serve any number of classes"
                    )
                value = self.loss(prediction, part.y)
                return value if share is None else share * value

            return loss

        weighted = self.accumulate and len(parts) > 1
        return [of(part, share if weighted else None) for part, share in zip(parts, shares, strict=True)]

    def forward_with(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The network's prediction with these parameters."""
        return self._apply_head(params, self.embed(params, x))

    def embed(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The network's output with these parameters; (n, d) where there is a head."""
        network = {name.removeprefix("network."): p for name, p in params.items() if name.startswith("network.")}
        z = call(self.network, network, x)
        return z if self.head is None else z.flatten(1)

    def refuse_idle(self, what: str) -> None:
        """Refuse meta-parameters of the network's update when no step moves the network.

        Args:
            what: what would learn nothing, for the message.

        Raises:
            ValueError: one step of a shared head, which starts at zero and lets no gradient through.
        """
        if self.head == "shared" and self.inner_steps == 1 and any(n.startswith("network.") for n in self.like()):
            raise ValueError(
                f"inner_steps=1 with head='shared' moves the head alone, so {what} would learn nothing: "
                "take 2 steps or more, head='prototypes', or adapts='head.*'"
            )

    def like(self) -> Params:
        """A tensor for each parameter that adapts, for rules that learn something about each.

        The head's first axis, one row for each class, has size 1; its second one too if the network does not say its
        ``out_features``.
        """
        found = {f"network.{name}": p.detach() for name, p in self.network.named_parameters() if p.requires_grad}
        if self.head is not None:
            features = getattr(self.network, "out_features", None)
            some = next(iter(found.values()), torch.ones(()))
            found["head.weight"] = some.new_ones(1, features if isinstance(features, int) else 1)
            found["head.bias"] = some.new_ones(1)
        return {name: p for name, p in found.items() if self.moves(name)}

    def _network_moves(self) -> bool:
        return self.head is None or any(
            self.moves(f"network.{n}") for n, p in self.network.named_parameters() if p.requires_grad
        )

    def _first_head(self, support: Labelled, buffers: Mapping[str, Tensor]) -> Params:
        if self.head is None:
            return {}
        require_classes(support.y)
        way = support.y.shape[-1]
        if self.head == "shared":
            d = getattr(self.network, "out_features", None)
            if not isinstance(d, int):
                with torch.no_grad():
                    d = self.network(support.x[:2]).flatten(1).shape[-1]
            zeros = support.y.new_zeros((way, d), dtype=_precision(self.network, support.y))
            return dict(zip(_HEAD, (zeros, zeros[:, 0].clone()), strict=True))
        z = self.embed(buffers, support.x)  # (n, d)
        centres = prototypes(z, support.y)
        return dict(zip(_HEAD, (2 * centres, -centres.square().sum(-1)), strict=True))

    def _apply_head(self, params: Mapping[str, Tensor], z: Tensor) -> Tensor:
        return z if self.head is None else z @ params["head.weight"].T + params["head.bias"]

    def _check_adapts(self) -> None:
        names = [f"network.{name}" for name, p in self.network.named_parameters() if p.requires_grad]
        names += [] if self.head is None else _HEAD
        for pattern in _patterns(self.adapts):
            if not any(fnmatchcase(n, pattern) or fnmatchcase(n.removeprefix("network."), pattern) for n in names):
                raise ValueError(
                    f"adapts={self.adapts!r} names no parameter that can move; there are {names[:6]}: use a name or a "
                    "pattern such as 'head.*', '*.bias' or '*'"
                )
        if self.head == "shared" and not any(self.moves(name) for name in _HEAD):
            raise ValueError(
                "head='shared' starts all classes alike, so one that does not adapt predicts nothing; with a head that "
                "stands still (BOIL) pass head='prototypes', or head=None and a network that ends in a linear layer"
            )


def _patterns(adapts: str | Sequence[str]) -> tuple[str, ...]:
    return (adapts,) if isinstance(adapts, str) else tuple(adapts)


def _parts_of(support: Labelled, size: int) -> list[Labelled]:
    """The support set in parts of at most ``size`` examples, each with some of every class of a sorted set."""
    n = len(support.x)
    parts = 1 if size == 0 else -(-n // size)
    return [support] if parts == 1 else [Labelled(support.x[j::parts], support.y[j::parts]) for j in range(parts)]


def _precision(network: nn.Module, y: Tensor) -> torch.dtype:
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), y.dtype)


def _refuse_running_statistics(network: nn.Module) -> None:
    running = [name for name, m in network.named_modules() if getattr(m, "track_running_stats", False)]
    if running:
        raise ValueError(
            f"{running[0]!r} of the network keeps running statistics, which an inner loop cannot update; use "
            "quickstudy's Standardize and Affine, group or layer norm, or "
            "torch.func.replace_all_batch_norm_modules_(network) for batch statistics"
        )


def _refuse_sparse_gradients(network: nn.Module) -> None:
    sparse = [name for name, m in network.named_modules() if getattr(m, "sparse", False) is True]
    if sparse:
        raise ValueError(
            f"{sparse[0]!r} of the network gives sparse gradients, which have no second derivative: build it with "
            "sparse=False"
        )
