"""The outer loop: ``meta_train``, and the population statistics that it keeps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quickstudy.backbones.norm import Standardize
from quickstudy.episode import Episode, TaskDistribution, check_episode, task
from quickstudy.learner import Learner, device_of, fit_to
from quickstudy.outer import unrolled

MetaLoss = Callable[[Learner, Episode], Tensor]
_STATISTICS_EVERY = 10


@dataclass(frozen=True)
class Step:
    """What one outer step did.

    Attributes:
        step: its number, from 1.
        loss: the meta-loss before the step (nats or squared units).
    """

    step: int
    loss: float


def meta_train(
    learner: Learner,
    tasks: TaskDistribution,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    meta_batch: int,
    generator: torch.Generator,
    meta_loss: MetaLoss = unrolled,
    start: int = 0,
) -> Iterator[Step]:
    """Draw a meta-batch, take the meta-gradient, take an outer step; yield after each.

    Logging, validation, checkpoints, learning-rate schedules and early stopping are ordinary code in the body of the
    caller's ``for`` loop; at each yield, and afterwards, the learner is in evaluation mode. Submodules that were in
    evaluation mode inside a learner in training mode (a frozen backbone) stay there. Dropout and whatever else draws
    from torch's global generator get a seed of their own at each step, so the same generator gives the same run.
    Population statistics of normalisation layers are refreshed at steps 1, 10, 20, ..., by a forward pass over the
    queries of one task.

    Args:
        learner: trained in place.
        tasks: the meta-training distribution.
        optimizer: any torch optimizer over ``learner.parameters()`` that steps without a closure.
        steps: the number of the last outer step.
        meta_batch: tasks per step.
        generator: draws the tasks.
        meta_loss: (learner, meta-batch) → scalar whose gradient is the estimate of the meta-gradient.
        start: outer steps already done, when training is resumed.

    Raises:
        ValueError: no meta-batch, episodes that ``check_episode`` refuses, or a learner without anything to train.
        FloatingPointError: a meta-loss or meta-gradient that is not finite, with the parameters left as they were
            before the step; or a parameter that the step made so. The message names the outer step.
    """
    if meta_batch < 1 or steps < 0:
        raise ValueError(f"meta_batch={meta_batch}, steps={steps}; required are at least 1 and 0")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS evaluates the loss several times a step; required is an optimizer without a closure")
    modes = {module: module.training or not learner.training for module in learner.modules()}
    for step in range(start + 1, steps + 1):
        learner.progress = (step - 1) / steps
        for module, mode in modes.items():
            module.training = mode
        episodes = tasks.sample(meta_batch, generator=generator)
        check_episode(episodes, regression=learner.regression)
        episodes = fit_to(episodes, learner)
        with _seeded(generator.initial_seed(), step, device_of(learner)):
            try:
                loss = meta_loss(learner, episodes)
            except FloatingPointError as error:
                raise FloatingPointError(f"outer step {step}, {error}; what was saved before is unharmed") from error
            value = _backward(learner, optimizer, loss, step)
        optimizer.step()
        _require_finite(list(learner.parameters()), f"a parameter is NaN or infinite after outer step {step}")
        if step == 1 or step % _STATISTICS_EVERY == 0:
            with _seeded(generator.initial_seed(), step, device_of(learner)):
                refresh_statistics(learner, task(episodes, 0))
        learner.eval()
        learner.progress = step / steps
        yield Step(step, value)


def _backward(learner: Learner, optimizer: torch.optim.Optimizer, loss: Tensor, step: int) -> float:
    """Put the meta-gradient in place; nothing is changed if it or the loss is not finite."""
    value = float(loss.detach())
    _require_finite([loss.detach()], f"the meta-loss is {value} at outer step {step}")
    if not loss.requires_grad:
        raise ValueError(
            f"the meta-loss of {type(learner).__name__} depends on no parameter that can be trained: evaluate it as it "
            "is, or look for a detach() on the way"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    gradient = [p.grad for p in learner.parameters() if p.grad is not None]
    _require_finite(gradient, f"the meta-gradient is NaN or infinite at outer step {step} (meta-loss {value:g})")
    return value


@contextmanager
def _seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators at a seed of this step, as dropout takes no other; restored afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed((seed * 1_000_003 + step) % 2**63)
        yield


def _require_finite(values: list[Tensor], what: str) -> None:
    if values and not bool(torch.stack([torch.isfinite(value).all() for value in values]).all()):
        raise FloatingPointError(
            f"{what}; required is a finite number: lower the learning rate or inner_lr, or clip the gradient; what "
            "was saved before is unharmed"
        )


@torch.no_grad()
def refresh_statistics(learner: Learner, episode: Episode) -> None:
    """Move the population statistics of every ``Standardize`` layer towards those of one task's queries."""
    layers = _population_layers(learner)
    if not layers:
        return
    passes = learner.passes(episode)

    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Standardize)
        layer.observe(inputs[0])

    hooks = [layer.register_forward_pre_hook(observe) for layer in layers]
    try:
        for forward in passes:
            forward()
    finally:
        for hook in hooks:
            hook.remove()


def settle_statistics(
    learner: Learner, tasks: TaskDistribution, *, generator: torch.Generator, episodes: int = 20
) -> None:
    """Take the population statistics anew from fresh tasks (Wu & Johnson 2021, arXiv:2105.07576, "precise BatchNorm").

    Better than those that training left when ``tasks`` are closer to what the learner will meet, for example without
    augmentation. Leaves the learner in evaluation mode.

    Args:
        learner: any learner; without ``Standardize`` layers nothing happens.
        tasks: where the statistics come from, one task at a time.
        generator: draws them.
        episodes: how many tasks.
    """
    layers = _population_layers(learner)
    for layer in layers:
        layer.updates.zero_()
    learner.eval()
    for layer in layers:
        layer.train()
    for _ in range(episodes if layers else 0):
        refresh_statistics(learner, task(fit_to(tasks.sample(1, generator=generator), learner), 0))
    learner.eval()


def _population_layers(learner: Learner) -> list[Standardize]:
    return [m for m in learner.modules() if isinstance(m, Standardize) and m.statistics == "population"]
