"""The outer loop: ``meta_train``, and checkpoints from which it continues bit for bit."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from quickstudy.backbones.norm import Standardize
from quickstudy.episode import Episode, TaskDistribution, check_episode, task, to_device
from quickstudy.evaluation import device_of
from quickstudy.files import write_atomically
from quickstudy.learner import Learner
from quickstudy.outer import unrolled
from quickstudy.saving import SavedFileError, read_header

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
    caller's ``for`` loop. Population statistics of normalisation layers are refreshed at steps 1, 10, 20, ... and at
    the last one, by a forward pass over the queries of one task.

    Args:
        learner: trained in place, in training mode.
        tasks: the meta-training distribution.
        optimizer: any torch optimizer over ``learner.parameters()``.
        steps: the number of the last outer step.
        meta_batch: tasks per step.
        generator: draws the tasks.
        meta_loss: (learner, meta-batch) → scalar whose gradient is the estimate of the meta-gradient.
        start: outer steps already done, when training is resumed.

    Raises:
        ValueError: no meta-batch, or episodes that ``check_episode`` refuses.
        FloatingPointError: a meta-loss that is not finite; the message names the outer step, and the parameters are
            those before it.
    """
    if meta_batch < 1 or steps < 0:
        raise ValueError(f"meta_batch={meta_batch}, steps={steps}; required are at least 1 and 0")
    for step in range(start + 1, steps + 1):
        learner.train()
        episodes = tasks.sample(meta_batch, generator=generator)
        check_episode(episodes, regression=learner.regression)
        episodes = to_device(episodes, device_of(learner))
        loss = meta_loss(learner, episodes)
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            raise FloatingPointError(
                f"the meta-loss is {value} at outer step {step}; required is a finite number: lower the learning rate "
                "or inner_lr, or clip the gradient, and go on from the last checkpoint"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step == 1 or step % _STATISTICS_EVERY == 0 or step == steps:
            refresh_statistics(learner, task(episodes, 0))
        yield Step(step, value)


@torch.no_grad()
def refresh_statistics(learner: Learner, episode: Episode) -> None:
    """Move the population statistics of every ``Standardize`` layer towards those of one task's queries."""
    layers = [m for m in learner.modules() if isinstance(m, Standardize) and m.statistics == "population"]
    if not layers:
        return
    support, query = episode
    adapted = learner.adapt(support, query.x) if learner.transductive else learner.adapt(support)
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs: layer.observe(inputs[0])) for layer in layers]
    try:
        learner.predict(adapted, query.x)
    finally:
        for hook in hooks:
            hook.remove()


def save_checkpoint(
    path: Path,
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
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, tensors_to_bytes(tensors, {"checkpoint": json.dumps(header)}))


@dataclass(frozen=True)
class Checkpoint:
    """Where training stood: the outer steps done, and the notes that were saved with it."""

    step: int
    notes: dict[str, Any]


def load_checkpoint(
    path: Path,
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
    header, tensors = read_header(path, "checkpoint"), tensors_from_bytes(path.read_bytes())
    own = learner.state_dict()
    saved = {name.removeprefix("learner/"): t for name, t in tensors.items() if name.startswith("learner/")}
    wrong = sorted(set(own) ^ set(saved)) or sorted(n for n in own if own[n].shape != saved[n].shape)
    if wrong:
        shapes = f"{_shape(saved, wrong[0])} in the file, {_shape(own, wrong[0])} in the learner"
        raise SavedFileError(
            f"{path} is a checkpoint of another learner: {wrong[0]} is {shapes}; build the learner with the arguments "
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
    learner.load_state_dict(saved)
    optimizer.load_state_dict({"state": state, "param_groups": header["optimizer"]["groups"]})
    generator.set_state(tensors["generator"])
    if scheduler is not None and header["scheduler"] is not None:
        scheduler.load_state_dict(header["scheduler"])
    return Checkpoint(header["step"], header["notes"])


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without what JSON cannot hold (functions, which its constructor is given again)."""

    def keep(value: Any) -> bool:
        try:
            json.dumps(value)
        except TypeError:
            return False
        return True

    return {name: value for name, value in state.items() if keep(value)}


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "missing"
