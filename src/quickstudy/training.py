"""The outer loop: ``meta_train``, and checkpoints from which it continues bit for bit."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

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
    caller's ``for`` loop. Population statistics of normalisation layers are refreshed at steps 1, 10, 20, ..., by a
    forward pass over the queries of one task.

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
        ValueError: no meta-batch, episodes that ``check_episode`` refuses, or a learner without anything to train.
        FloatingPointError: a meta-loss or meta-gradient that is not finite; the message names the outer step, and the
            parameters are those before it.
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
        _require_finite([loss.detach()], f"the meta-loss is {value} at outer step {step}")
        if not loss.requires_grad:
            raise ValueError(
                f"the meta-loss of {type(learner).__name__} depends on no parameter that can be trained: evaluate it "
                "as it is, or look for a detach() on the way"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient = [p.grad for p in learner.parameters() if p.grad is not None]
        _require_finite(gradient, f"the meta-gradient is NaN or infinite at outer step {step} (meta-loss {value:g})")
        optimizer.step()
        if step == 1 or step % _STATISTICS_EVERY == 0:
            refresh_statistics(learner, task(episodes, 0))
        yield Step(step, value)


def _require_finite(values: list[Tensor], what: str) -> None:
    if values and not bool(torch.stack([torch.isfinite(value).all() for value in values]).all()):
        raise FloatingPointError(
            f"{what}; required is a finite number: lower the learning rate or inner_lr, or clip the gradient; what "
            "was saved before is unharmed"
        )


@torch.no_grad()
def refresh_statistics(learner: Learner, episode: Episode) -> None:
    """Move the population statistics of every ``Standardize`` layer towards those of one task's queries."""
    layers = [m for m in learner.modules() if isinstance(m, Standardize) and m.statistics == "population"]
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
    # a copy of each tensor: safetensors refuses two names for one memory (tied parameters)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        text = json.dumps(header)
    except TypeError as error:
        raise ValueError(
            f"the notes or the state of {type(optimizer).__name__} hold what a checkpoint cannot ({error}): use plain "
            "numbers, such as lr=0.001 and not a tensor"
        ) from error
    write_atomically(Path(path), tensors_to_bytes(tensors, {"checkpoint": text}))


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
    header, tensors = read_header(path, "checkpoint"), tensors_from_bytes(path.read_bytes())
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
