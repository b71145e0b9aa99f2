"""Train an update rule: the outer loop of learned optimizers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

RuleLoss = Callable[[nn.Module, torch.Generator], Tensor]


@dataclass(frozen=True)
class RuleStep:
    """What one outer step did.

    Attributes:
        step: its number, from 1.
        loss: the meta-loss before the step: mean logarithm of losses, or mean loss.
        diverged: problems that were given up in it.
        skipped: nothing was learned from it, as the meta-loss or the meta-gradient was not finite.
    """

    step: int
    loss: float
    diverged: int
    skipped: bool


def train_rule(
    rule: nn.Module,
    meta_loss: RuleLoss,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    generator: torch.Generator,
    clip: float = 1.0,
    start: int = 0,
) -> Iterator[RuleStep]:
    """Estimate the meta-gradient, take an outer step; yield after each.

    Logging, checkpoints and schedules are ordinary code in the body of the caller's ``for`` loop. An inner problem that
    diverges is given up and counted; an estimate that is not finite in spite of that changes nothing, so the rule's
    weights stay finite.

    Args:
        rule: trained in place.
        meta_loss: ``Backpropagated`` or ``EvolutionStrategies``, or any (rule, generator) → scalar whose gradient is
            the estimate of the meta-gradient.
        optimizer: any torch optimizer over ``rule.parameters()``.
        steps: the number of the last outer step.
        generator: draws problems and perturbations.
        clip: largest norm of the meta-gradient, above 0.
        start: outer steps already done, when training is resumed.

    Raises:
        ValueError: a negative number of steps, clip not above 0, a rule without anything to learn.
        FloatingPointError: ten estimates in a row that are not finite.
    """
    if steps < 0 or not clip > 0:
        raise ValueError(f"steps={steps}, clip={clip}; required is at least 0 steps, and clip above 0")
    weights = [p for p in rule.parameters() if p.requires_grad]
    if not weights:
        raise ValueError(f"{type(rule).__name__} has no weights that require a gradient: there is nothing to train")
    in_a_row = 0
    for step in range(start + 1, steps + 1):
        loss = meta_loss(rule, generator)
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        gradient = [p.grad for p in weights if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradient) if gradient else loss.detach().new_zeros(())
        skipped = not bool(torch.isfinite(norm) & torch.isfinite(loss.detach()))
        in_a_row = in_a_row + 1 if skipped else 0
        if skipped:
            optimizer.zero_grad(set_to_none=True)
        else:
            torch.nn.utils.clip_grads_with_norm_(weights, clip, norm)
            optimizer.step()
        if in_a_row == 10:
            raise FloatingPointError(
                f"ten estimates of the meta-gradient in a row, until outer step {step}, were not finite; the rule's "
                "weights are those of before: lower the rule's lr, or start problems at a smaller scale"
            )
        yield RuleStep(step, float(loss.detach()), int(getattr(meta_loss, "diverged", 0)), skipped)
