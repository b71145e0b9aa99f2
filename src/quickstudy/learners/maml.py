"""Model-Agnostic Meta-Learning: gradient-based.

Chelsea Finn, Pieter Abbeel, Sergey Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks.
ICML 2017, arXiv:1703.03400.

Learn an initialisation θ from which a few gradient steps on a task's support set generalise to its queries.

    φ_0 = θ,  φ_{t+1} = φ_t − α ∇_φ L_support(φ_t)         (section 2.2, ``inner_steps`` times)
    min_θ Σ_T L_query(φ_T(θ))                               (equation 1; its gradient is exact through all steps)
    first order: ∇_φ L_support is taken as a constant        (section 5.2)

Variants that are arguments:

    ANIL: only the head adapts (Raghu et al. 2020, arXiv:1909.09157): ``adapts="head.*"``
    BOIL: only the body adapts (Oh et al. 2021, arXiv:2008.08882): ``adapts="network.*", head="prototypes"``
    MAML++ (Antoniou, Edwards, Storkey 2019, arXiv:1810.09502): ``per_step_rates`` (LSLR), ``multi_step`` (MSL),
        ``first_order_until`` (DA), ``per_step_statistics`` (BNRS)

The heads are described in ``gradient_based``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.backbones.norm import Standardize
from quickstudy.episode import Episode, Labelled
from quickstudy.inner import SGD, AnyMode, Implicit, Params, StepRates, UpdateRule, as_mode, trajectory, unroll
from quickstudy.learners.gradient_based import GradientBased, Head


class MAML(GradientBased):
    """Adapt the parameters of a network by gradient descent on the support set.

    Args:
        network, head, inner_steps, adapts, inner_batch, accumulate, regression: see ``GradientBased``.
        inner_lr: α.
        first_order: take inner gradients as constants; short for mode="first_order".
        mode: how the inner loop is differentiated, see ``unroll``.
        rule: another update rule than SGD(inner_lr), see ``quickstudy.inner``.
        per_step_rates: learn a rate for each tensor and step, from α on (MAML++, LSLR).
        multi_step: during this first fraction of training, the meta-loss weighs the query losses after every step, at
            first all alike, and ever more the last one (MAML++, MSL); 0 is off.
        first_order_until: during this first fraction of training, inner gradients are constants (MAML++, DA).
        per_step_statistics: population statistics of their own for each inner step (MAML++, BNRS).

    Differs from the paper: the head can be shared between classes, so one learner serves any way.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Head = "shared",
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        first_order: bool = False,
        mode: AnyMode = "reverse",
        adapts: str | Sequence[str] = "*",
        rule: UpdateRule | None = None,
        inner_batch: int = 0,
        accumulate: bool = False,
        regression: bool = False,
        per_step_rates: bool = False,
        multi_step: float = 0.0,
        first_order_until: float = 0.0,
        per_step_statistics: bool = False,
    ):
        if inner_lr < 0 or inner_steps < 0:
            raise ValueError(f"inner_lr={inner_lr}, inner_steps={inner_steps}; required is at least 0 of each")
        if first_order and mode not in ("reverse", "first_order"):
            raise ValueError(f"first_order=True and mode={mode!r}; leave one of them out")
        if rule is None and isinstance(as_mode(mode), Implicit):
            raise ValueError(f"mode={mode!r} needs a pull to θ, without which the minimum forgets it: use IMAML")
        if rule is not None and per_step_rates:
            raise ValueError("a rule and per_step_rates were given, which is a rule of its own: leave one of them out")
        if (multi_step or per_step_statistics) and mode not in ("reverse", "first_order"):
            raise ValueError(
                f"mode={mode!r} gives the last parameters alone, and multi_step and per_step_statistics need all"
            )
        if per_step_statistics and inner_batch:
            raise ValueError("per_step_statistics with inner_batch: the parts differ from step to step; leave one out")
        super().__init__(
            network,
            head=head,
            update_rule=rule or SGD(inner_lr),
            inner_steps=inner_steps,
            mode=mode,
            adapts=adapts,
            inner_batch=inner_batch,
            accumulate=accumulate,
            regression=regression,
        )
        self.inner_lr, self.first_order, self.rule = inner_lr, first_order, rule
        self.per_step_rates, self.multi_step, self.first_order_until = per_step_rates, multi_step, first_order_until
        self.per_step_statistics = per_step_statistics
        self.watches_progress = bool(multi_step or first_order_until)
        if per_step_rates:
            self.update_rule = StepRates(list(self.like()), max(1, inner_steps), inner_lr)
        if per_step_statistics and not self._network_moves():
            raise ValueError(
                f"per_step_statistics with adapts={adapts!r}: the network stands still, so its statistics are the same "
                "at every step; leave one out"
            )
        self.statistics: Any = nn.ModuleDict()
        for name, layer in self._layers() if per_step_statistics else ():
            self.statistics[name.replace(".", "/")] = _PerStep(layer, inner_steps + 1)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Params:
        """φ: what adapts of the network after ``inner_steps`` steps, and the head."""
        if self.per_step_statistics:
            return self._path(support)[-1]
        start, moving, losses = self._task(support)
        mode = "first_order" if self._constant_gradients() else self.mode
        adapted = unroll(
            self.update_rule, losses, moving, steps=self.inner_steps, mode=mode, accumulate=self.accumulate
        )
        return self.finish(start, adapted, support)

    def meta_loss(self, episode: Episode) -> Tensor:
        """The query loss after the last step; early in training with ``multi_step``, after each step as well."""
        weights = self._step_weights()
        if weights is None:
            return super().meta_loss(episode)
        support, query = episode
        losses = [self.loss(self.predict(phi, query.x), query.y) for phi in self._path(support)[1:]]
        return sum((w * loss for w, loss in zip(weights, losses, strict=True)), torch.zeros_like(losses[0]))

    def passes(self, episode: Episode) -> list[Callable[[], Any]]:
        """With per-step statistics one pass for each step, over the support set, and the last one over the queries."""
        if not self.per_step_statistics:
            return super().passes(episode)
        path = self._path(episode.support)
        inputs = [episode.support.x] * self.inner_steps + [episode.query.x]
        return [lambda phi=phi, x=x: self.forward_with(phi, x) for phi, x in zip(path, inputs, strict=True)]

    def _task(self, support: Labelled) -> tuple[Params, Params, list[Callable[[Params], Tensor]]]:
        start = self.start(support, self._rows(0))
        moving = {name: p for name, p in start.items() if self.moves(name)}
        return start, moving, self.inner_losses(support, {n: p for n, p in start.items() if n not in moving})

    def _path(self, support: Labelled) -> list[Params]:
        """φ after each step, from the start on, as ``predict`` takes it."""
        start, moving, losses = self._task(support)
        if self.per_step_statistics:
            (loss,) = losses
            rows = [self._rows(t) for t in range(self.inner_steps)]
            losses = [lambda params, row=row: loss({**params, **row}) for row in rows] or losses
        path = trajectory(
            self.update_rule,
            losses,
            moving,
            steps=self.inner_steps,
            mode="first_order" if self._constant_gradients() else "reverse",
            accumulate=self.accumulate,
        )
        found = [self.finish(start, phi, support) for phi in path]
        return [{**phi, **self._rows(t)} for t, phi in enumerate(found)]

    def _constant_gradients(self) -> bool:
        early = self.training and self.progress < self.first_order_until
        return early or self.first_order or self.mode == "first_order"

    def _step_weights(self) -> list[float] | None:
        """Of the query losses after each step: alike at first, and linearly towards the last one alone (section 4)."""
        done = self.progress / self.multi_step if self.multi_step else 1.0
        if not self.training or done >= 1 or self.inner_steps == 0:
            return None
        share = (1 - done) / self.inner_steps
        return [share] * (self.inner_steps - 1) + [1 - share * (self.inner_steps - 1)]

    def _layers(self) -> list[tuple[str, Standardize]]:
        layers = [(name, m) for name, m in self.network.named_modules() if isinstance(m, Standardize)]
        layers = [(name, m) for name, m in layers if m.statistics == "population"]
        if not layers:
            raise ValueError(
                "per_step_statistics, and the network has no layer with population statistics: build it with "
                "norm='population' (quickstudy.backbones.norm.Standardize), or leave it out"
            )
        return layers

    def _rows(self, t: int) -> Params:
        """The statistics of step ``t`` by the names of the network's buffers; the last ones serve further steps."""
        rows = {}
        for key, layer in self.statistics.items():
            for name, buffer in layer.named_buffers():
                rows[f"network.{key.replace('/', '.')}.{name}"] = buffer[min(t, len(buffer) - 1)]
        return rows


class _PerStep(nn.Module):
    """The statistics of one layer, with a row for each inner step."""

    def __init__(self, layer: Standardize, rows: int):
        super().__init__()
        for name, buffer in layer.named_buffers():
            self.register_buffer(name, torch.stack([buffer] * rows))
