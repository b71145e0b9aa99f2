"""Any optimizer of torch as an update rule: pure, and differentiable with respect to all that goes in.

A ``torch.optim.Optimizer`` overwrites parameters, and its ``step`` hides everything from autograd. Here the class's own
code runs, unmodified, on an instance that lives for one step, while a ``TorchFunctionMode`` answers what it asks of
torch: an operation in place computes a new tensor that stands for the old one from then on; ``p.grad`` is the gradient
that was handed over; ``detach``, ``.data`` and ``no_grad`` do nothing; a number that is no constant stays a tensor. So
the numbers are those of the optimizer, no memory is overwritten, and a step composes with autograd, ``torch.func`` and
threads.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from quickstudy.inner.pure_step import built, pure_step
from quickstudy.inner.rules import Params

Learned = dict[str, Tensor | tuple[Tensor, ...]]
_OURS = ("foreach", "fused", "capturable", "differentiable")
_FRACTIONS = ("alpha", "beta", "beta1", "beta2", "beta3", "betas", "dampening", "etas", "momentum", "rho")
_ABOVE_ONE = ("d", "etas")


class TorchOptim(nn.Module):
    """One step of a ``torch.optim`` optimizer, or of any other subclass of ``torch.optim.Optimizer``.

    ``TorchOptim("Adam", lr=0.01, learn=("lr", "betas"))``. Several parameter groups are several rules, in ``ByName``.

    With ``learn``, hyper-parameters become meta-parameters that cannot leave their range: a number v > 0 is exp(ρ) with
    a learned ρ, a negative one −exp(ρ); of alpha, betas, dampening, etas, momentum and rho, what lies in (0, 1) is
    1 / (1 + exp(−ρ)); an eta (Rprop) or d (Adafactor) above 1 is 1 + exp(ρ).

    The derivative is that of the optimizer's code. Where that has none: √v counts as constant at v = 0, where every
    gradient so far was 0 (units that are never active, rows that are not looked up), instead of giving NaN; comparisons
    (Rprop's signs, clipping) are taken as they fell; Muon's derivative has the 8 bits that Muon computes in.

    Args:
        optimizer: the class, or its name in ``torch.optim``.
        options: its keyword arguments; those in ``kwargs`` go first.
        learn: names of hyper-parameters, numbers or tuples of them, to be meta-learned from their given values on.
        kwargs: more of its keyword arguments. ``foreach``, ``fused``, ``capturable`` and ``differentiable`` change
            nothing about the numbers and are not taken.

    Attributes:
        optimizer_class: the class.
        learned: ρ of each learned hyper-parameter, of shape () or (length of the tuple,).

    Raises:
        ValueError: no optimizer, or one that cannot be a rule (its step needs a closure or sparse gradients, or it
            keeps state outside of its ``state`` and its group, or draws random numbers); options it does not have; a
            hyper-parameter that cannot be learned: it is no number, or 0, or the class's code makes a constant of it.
            All this is tried out on eight steps in double precision.
    """

    def __init__(
        self,
        optimizer: type[torch.optim.Optimizer] | str,
        options: Mapping[str, Any] | None = None,
        *,
        learn: Sequence[str] = (),
        **kwargs: Any,
    ):
        super().__init__()
        self.optimizer_class = cls = _as_class(optimizer)
        self.optimizer = cls.__name__ if getattr(torch.optim, cls.__name__, None) is cls else cls
        self.options = {k: tuple(v) if isinstance(v, list) else v for k, v in {**(options or {}), **kwargs}.items()}
        self.learn = (learn,) if isinstance(learn, str) else tuple(learn)
        _check_options(cls, self.options)
        _check_steps(cls, self.options)
        self._starts = starts = {name: _start(cls, self.options, name) for name in self.learn}
        for name, start in starts.items():
            _check_derivative(cls, self.options, name, start)
        self.learned = nn.ParameterDict(
            {
                n: nn.Parameter(torch.tensor(_map(_to_rho, n, v), dtype=torch.get_default_dtype()))
                for n, v in starts.items()
            }
        )

    def init(self, params: Params) -> None:
        """No state: the optimizer makes its own in the first step."""

    def step(
        self, params: Params, grads: Mapping[str, Tensor], state: dict[str, Any] | None
    ) -> tuple[Params, dict[str, Any]]:
        """One step of the optimizer.

        Args:
            params: θ by name.
            grads: ∇L(θ), dense.
            state: None, or what the last step returned.

        Returns:
            The new parameters, and the state: "params", for each name what the optimizer keeps of it, and "group", what
            it changed in its parameter group.

        Raises:
            ValueError: a sparse gradient.
            RuntimeError: under ``vmap``, an optimizer that decides by the value of a tensor.
        """
        for name, g in grads.items():
            if g.layout is not torch.strided:
                raise ValueError(
                    f"the gradient of {name!r} is sparse, which has no second derivative; required is a dense one: "
                    "build the layer with sparse=False"
                )
        return pure_step(self.optimizer_class, self.options, params, grads, state, self.hyperparameters())

    def hyperparameters(self) -> Learned:
        """The values of the learned hyper-parameters by name, differentiable; a tuple where the optimizer has one."""
        return {name: _value(name, start, self.learned[name].double()) for name, start in self._starts.items()}


# the range of learned hyper-parameters


def _map(f: Any, name: str, value: Any) -> Any:
    """f(name, v) for a number v, or for each of a tuple."""
    return tuple(f(name, v) for v in value) if isinstance(value, tuple) else f(name, value)


def _value(name: str, start: Any, rho: Tensor) -> Tensor | tuple[Tensor, ...]:
    """A hyper-parameter that started as ``start``."""
    if not isinstance(start, tuple):
        return _of_rho(name, start, rho)
    return tuple(_of_rho(name, v, r) for v, r in zip(start, rho.unbind(), strict=True))


def _to_rho(name: str, v: float) -> float:
    if name in _FRACTIONS and 0 < v < 1:
        return math.log(v) - math.log1p(-v)
    return math.log(v - 1) if name in _ABOVE_ONE and v > 1 else math.log(abs(v))


def _of_rho(name: str, v: float, rho: Tensor) -> Tensor:
    if name in _FRACTIONS and 0 < v < 1:
        return torch.sigmoid(rho)
    return 1 + torch.exp(rho) if name in _ABOVE_ONE and v > 1 else math.copysign(1, v) * torch.exp(rho)


def _start(cls: type[torch.optim.Optimizer], options: Mapping[str, Any], name: str) -> float | tuple[float, ...]:
    """Where a learned hyper-parameter starts."""
    group = built(cls, _trial()[0].values(), options).param_groups[0]
    could = [key for key, value in group.items() if key != "params" and _is_learnable(value)]
    if name not in group or name == "params":
        raise ValueError(f"learn={name!r} is no hyper-parameter of {cls.__name__}; choose among {', '.join(could)}")
    value = tuple(group[name]) if isinstance(group[name], list) else group[name]
    if not _is_learnable(value):
        raise ValueError(
            f"{cls.__name__} starts with {name}={value!r}; to be learned it must start at a number other than 0, or a "
            f"tuple of such: pass {name}=..., or learn others ({', '.join(could)})"
        )
    return tuple(map(float, value)) if isinstance(value, tuple) else float(value)


def _is_learnable(value: Any) -> bool:
    parts = tuple(value) if isinstance(value, tuple | list) else (value,)
    numbers = [isinstance(v, float) or (isinstance(v, int) and not isinstance(v, bool)) for v in parts]
    return len(parts) > 0 and all(numbers) and all(v != 0 and math.isfinite(v) for v in parts)


# what a class and its options must be


def _as_class(optimizer: Any) -> type[torch.optim.Optimizer]:
    cls = getattr(torch.optim, optimizer, None) if isinstance(optimizer, str) else optimizer
    if not isinstance(cls, type) or not issubclass(cls, torch.optim.Optimizer) or cls is torch.optim.Optimizer:
        known = [n for n in torch.optim.__all__ if n not in ("LBFGS", "Optimizer", "SparseAdam") and n[0].isupper()]
        raise ValueError(
            f"optimizer={optimizer!r} is no optimizer; required is a subclass of torch.optim.Optimizer, or one of "
            f"{', '.join(known)}"
        )
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"{cls.__name__} evaluates the loss several times a step (closure), and a rule is given one gradient: "
            "use Adam or SGD"
        )
    if issubclass(cls, torch.optim.SparseAdam):
        raise ValueError("SparseAdam steps on sparse gradients, which have no second derivative: use Adam")
    return cls


def _check_options(cls: type[torch.optim.Optimizer], options: Mapping[str, Any]) -> None:
    signature = inspect.signature(cls)
    _, *parameters = signature.parameters.values()
    allowed = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in _OURS
    ]
    for name, value in options.items():
        if name in _OURS:
            raise ValueError(
                f"{name}={value!r} is how {cls.__name__} would compute, which the rule decides: leave it out"
            )
        if isinstance(value, Tensor):
            raise ValueError(f"{name} is a tensor; required is a number: pass it as such, with learn=({name!r},)")
    try:
        signature.bind(None, **options)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}; its options are {', '.join(allowed)}") from error


# what it does on a trial

_STEPS = 8  # RAdam rectifies from the sixth on
_H = 1e-4
_LEAST = 0.01713


class _Wide(TorchFunctionMode):
    """Counters and the like in double precision, so that differences of them have digits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") not in ("tensor", "as_tensor", "zeros", "ones", "full"):
            return result
        wide = result.ndim == 0 and result.is_floating_point()
        return func(*args, **{**(kwargs or {}), "dtype": torch.float64}) if wide else result


def _trial() -> tuple[Params, list[Params]]:
    """Parameters, and a gradient for each step: matrices, as some classes take no others."""
    like = {"a": torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3), "b": -torch.ones(1, 2, dtype=torch.float64)}
    grads = [{name: torch.cos(1.3 * t + 0.7 * p) for name, p in like.items()} for t in range(_STEPS)]
    return like, grads


def _own_run(cls: type[torch.optim.Optimizer], options: Mapping[str, Any]) -> list[Tensor]:
    """The parameters after every step of the class itself, as one vector each."""
    start, grads = _trial()
    params = {name: nn.Parameter(p) for name, p in start.items()}
    optimizer = built(cls, params.values(), options)
    path = []
    for grad in grads:
        for name, p in params.items():
            p.grad = grad[name].clone()
        with torch.no_grad():
            inspect.unwrap(cls.step)(optimizer)
        path.append(torch.cat([p.detach().flatten() for p in params.values()]))
    return path


def _pure_run(cls: type[torch.optim.Optimizer], options: Mapping[str, Any], learned: Mapping[str, Any]) -> list[Tensor]:
    params, grads = _trial()
    params = {name: p.requires_grad_() for name, p in params.items()}
    state, path = None, []
    for grad in grads:
        params, state = pure_step(cls, options, params, grad, state, learned)
        path.append(torch.cat([p.flatten() for p in params.values()]))
    return path


def _check_steps(cls: type[torch.optim.Optimizer], options: Mapping[str, Any]) -> None:
    """Its own steps and the pure ones must agree."""
    try:
        own = _own_run(cls, options)
        pure = _pure_run(cls, options, {})
    except ValueError:
        raise
    except Exception as error:  # a class from anywhere may raise anything
        raise ValueError(
            f"{cls.__name__} cannot step on given gradients alone ({error}): use another optimizer"
        ) from error
    if not torch.allclose(torch.stack(pure), torch.stack(own), rtol=1e-9, atol=1e-12, equal_nan=True):
        raise ValueError(
            f"{cls.__name__} draws random numbers, or keeps something outside of its state and its parameter group, so "
            "that a step does not follow from parameters, gradients and state: use another optimizer"
        )


def _check_derivative(cls: type[torch.optim.Optimizer], options: Mapping[str, Any], name: str, start: Any) -> None:
    """The derivative with respect to a hyper-parameter must be that of central differences of the class's own steps."""
    # what is tiny is tried larger, where differences can be told from rounding
    start = _map(lambda _, v: math.copysign(max(abs(v), _LEAST), v), name, start)
    rho = torch.tensor(_map(_to_rho, name, start), dtype=torch.float64)

    def objective(path: list[Tensor]) -> Tensor:
        phi = torch.stack(path)
        return (phi * torch.cos(torch.arange(phi.numel(), dtype=phi.dtype).reshape(phi.shape))).sum()

    def own(rho: Tensor) -> Tensor:
        value = _value(name, start, rho)
        numbers = tuple(map(float, value)) if isinstance(value, tuple) else float(value)
        return objective(_own_run(cls, {**options, name: numbers}))

    try:
        with torch.enable_grad(), _Wide():
            moving = rho.clone().requires_grad_()
            found = objective(_pure_run(cls, options, {name: _value(name, start, moving)}))
            (got,) = torch.autograd.grad(found, moving, materialize_grads=True)
            steps = _H * torch.eye(rho.numel(), dtype=rho.dtype).reshape(-1, *rho.shape)
            due = torch.stack([(own(rho + h) - own(rho - h)) / (2 * _H) for h in steps]).reshape(rho.shape)
        reason = f"it gives {got.tolist()}, and central differences {due.tolist()}"
    except (RuntimeError, TypeError, ValueError) as error:
        got, due, reason = torch.full_like(rho, math.nan), rho, str(error)
    if not torch.allclose(got, due, rtol=1e-3, atol=1e-9):
        raise ValueError(
            f"learn={name!r}: the code of {cls.__name__} passes no right derivative to it ({reason}): leave it out of "
            "learn"
        )
