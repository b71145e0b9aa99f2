"""The outer loop: ``meta_train``, and checkpoints from which it continues bit for bit."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.backbones.norm import Standardize
from quickstudy.episode import Episode, TaskDistribution, check_episode, task
from quickstudy.learner import Learner, device_of, fit_to
from quickstudy.outer import unrolled
from quickstudy.saving import SavedFileError, read_tensors, write_tensors

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
        FloatingPointError: a meta-loss or meta-gradient that is not finite; the message names the outer step, and the
            parameters are those before it.
    """
    if meta_batch < 1 or steps < 0:
        raise ValueError(f"meta_batch={meta_batch}, steps={steps}; required are at least 1 and 0")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS evaluates the loss several times a step; required is an optimizer without a closure")
    modes = {module: module.training or not learner.training for module in learner.modules()}
    for step in range(start + 1, steps + 1):
        for module, mode in modes.items():
            module.training = mode
        episodes = tasks.sample(meta_batch, generator=generator)
        check_episode(episodes, regression=learner.regression)
        episodes = fit_to(episodes, learner)
        with _seeded(generator.initial_seed(), step, device_of(learner)):
            loss = meta_loss(learner, episodes)
            value = _backward(learner, optimizer, loss, step)
        optimizer.step()
        _require_finite(list(learner.parameters()), f"a parameter is NaN or infinite after outer step {step}")
        if step == 1 or step % _STATISTICS_EVERY == 0:
            refresh_statistics(learner, task(episodes, 0))
        learner.eval()
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
    """Torch's global generators at a seed of this step; restored afterwards."""
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
    support, query = episode
    adapted = learner.adapt(support, query.x) if learner.transductive else learner.adapt(support)

    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Standardize)
        layer.observe(inputs[0])

    hooks = [layer.register_forward_pre_hook(observe) for layer in layers]
    try:
        learner.predict(adapted, query.x)
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


def save_checkpoint(
    path: str | Path,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    generator: torch.Generator,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    notes: dict[str, Any] | None = None,
) -> None:
    """Write θ, optimizer, generator, scheduler and step to one safetensors file.

    The file is written beside ``path`` and renamed, so a full disk or a power cut leaves the previous one whole.

    Args:
        notes: anything that JSON can hold, handed back by ``load_checkpoint``.

    Raises:
        ValueError: notes or optimizer settings that JSON cannot hold.
        OSError: the file could not be written; what was at ``path`` is still there.
    """
    state = optimizer.state_dict()
    tensors = {f"learner/{name}": tensor for name, tensor in learner.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    tensors["generator"] = generator.get_state()
    header = {
        "step": step,
        "optimizer": {"class": type(optimizer).__name__, "state": plain, "groups": state["param_groups"]},
        "scheduler": None if scheduler is None else _plain(scheduler.state_dict()),
        "notes": notes or {},
    }
    try:
        write_tensors(Path(path), tensors, "checkpoint", header)
    except TypeError as error:
        raise ValueError(
            f"the notes or the state of {type(optimizer).__name__} hold what a checkpoint cannot ({error}): use plain "
            "numbers, such as lr=0.001 and not a tensor"
        ) from error


@dataclass(frozen=True)
class Checkpoint:
    """Where training stood: the outer steps done, and the notes that were saved with it."""

    step: int
    notes: dict[str, Any]


def load_checkpoint(
    path: str | Path,
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    *,
    generator: torch.Generator,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Checkpoint:
    """Put everything back as ``save_checkpoint`` found it; training then continues bit for bit.

    Raises:
        ValueError: a file that is missing, cut or no checkpoint, or one of another learner, shape or optimizer (named);
            nothing is changed then.
    """
    path = Path(path)
    header, tensors = read_tensors(path, "checkpoint")
    own = learner.state_dict()
    saved = {name.removeprefix("learner/"): t for name, t in tensors.items() if name.startswith("learner/")}
    wrong = sorted(set(own) ^ set(saved)) or sorted(n for n in own if _kind(own, n) != _kind(saved, n))
    if wrong:
        kinds = f"{_kind(saved, wrong[0])} in the file, {_kind(own, wrong[0])} in the learner"
        raise SavedFileError(
            f"{path} is a checkpoint of another learner: {wrong[0]} is {kinds}; build the learner with the arguments "
            "it was trained with (config.json beside the checkpoint), or start a new run"
        )
    if header["optimizer"]["class"] != type(optimizer).__name__:
        raise SavedFileError(
            f"{path} was written with the optimizer {header['optimizer']['class']}, and {type(optimizer).__name__} was "
            "given: resume with the same one"
        )
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in header["optimizer"]["state"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            state.setdefault(int(index), {})[key] = tensor
    if (scheduler is None) != (header["scheduler"] is None):
        there, given = ("no", "one") if header["scheduler"] is None else ("a", "none")
        raise SavedFileError(
            f"{path} was written with {there} scheduler, and {given} was given: resume with the same arguments"
        )
    try:
        optimizer.load_state_dict({"state": state, "param_groups": header["optimizer"]["groups"]})
    except ValueError as error:
        raise SavedFileError(f"{path} was written with other parameters in the optimizer: {error}") from error
    learner.load_state_dict(saved)
    generator.set_state(tensors["generator"])
    if scheduler is not None:
        scheduler.load_state_dict(header["scheduler"])
    return Checkpoint(header["step"], header["notes"])


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without what JSON cannot give back (functions, counters): its constructor makes that."""

    def keep(value: Any) -> bool:
        try:
            return json.loads(json.dumps(value)) == value
        except TypeError:
            return False

    chained = {"_schedulers": [_plain(s) for s in state["_schedulers"]]} if "_schedulers" in state else {}
    return {name: value for name, value in (state | chained).items() if keep(value)}


def _kind(tensors: dict[str, Tensor], name: str) -> str:
    if name not in tensors:
        return "missing"
    return f"{tuple(tensors[name].shape)} {str(tensors[name].dtype).removeprefix('torch.')}"
