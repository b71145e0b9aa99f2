"""Memory and time of one meta-step, for each way of differentiating the inner loop.

Every combination of mode and inner steps is measured in a process of its own, one after the other, which ends by
itself. There, peak memory is measured first and time second:

- Memory is what a meta-step needs above the baseline: the memory held after imports, after the learner and the tasks
  were built, and after one tiny warm-up task. Freed blocks go back to the kernel at once in this pass, so that the peak
  tells which tensors were alive together, and not what glibc kept from before.
- Time is the median over meta-steps, forward and backward. Freed blocks are kept, as the command keeps them. With one
  thread on a CPU it is processor time, which other work on the machine disturbs less, otherwise wall-clock time.

The tasks are random numbers, as neither memory nor time depends on what is in them.
"""

import inspect
import json
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any, get_args

import torch
from torch import nn

import quickstudy
from quickstudy.backbones import MLP, Conv4, LSTMEncoder, Transformer
from quickstudy.episode import Episode, Labelled, one_hot
from quickstudy.inner import Implicit, Mode
from quickstudy.learner import Learner
from quickstudy.learners import IMAML, LEARNERS, MAML
from quickstudy.metering import median_seconds, peak_above, return_freed_memory
from quickstudy.outer import unrolled
from quickstudy.process import keep_freed_memory, use_threads

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv4": (lambda: Conv4(norm="batch"), (1, 28, 28)),
    "mlp": (lambda: MLP(784, (64, 64), 64), (784,)),
    "lstm": (lambda: LSTMEncoder(28), (28, 28)),
    "transformer": (lambda: Transformer(28), (28, 28)),
}
"""The networks that can be profiled, and the shape of an example: an image of 28×28, the same flat, or row by row."""

MODES: tuple[str, ...] = get_args(Mode)
INNER_LR, STRENGTH, ITERATIONS = 1e-4, 5e3, 5
"""Tiny steps and a strong pull, so that on random numbers nothing diverges and every linear system can be solved."""


@dataclass(frozen=True)
class Setup:
    """What is measured: every combination of ``modes`` and ``steps``.

    Args:
        learner: a name in ``LEARNERS``, of a learner that takes ``inner_steps`` and ``mode``; or "imaml".
        network: a name in ``NETWORKS``.
        modes: how the inner loop is differentiated, see ``unroll``.
        steps: inner steps.
        way, shot, queries: of each task.
        tasks: of a meta-step, one after the other.
        repeats: meta-steps that are timed, after one that is not; fewer once they have taken a minute.
        threads: for torch; 0 takes every processor.
        device: "cpu", "cuda", ...
        timeout: seconds that each combination may take.

    Raises:
        ValueError: an unknown name, or a number that is too small.
    """

    learner: str = "maml"
    network: str = "conv4"
    modes: tuple[str, ...] = ("reverse", "recompute", "implicit")
    steps: tuple[int, ...] = (1, 5, 20, 50)
    way: int = 5
    shot: int = 1
    queries: int = 15
    tasks: int = 1
    repeats: int = 5
    threads: int = 0
    device: str = "cpu"
    timeout: int = 600

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("way", "shot", "queries", "tasks", "repeats", "timeout")}
        if min(counts.values()) < 1:
            given = ", ".join(f"{name}={value}" for name, value in counts.items())
            raise ValueError(f"{given}; required is at least 1 of each")
        if not self.steps or min(self.steps) < 1 or not self.modes:
            raise ValueError(f"steps={self.steps}, modes={self.modes}; required are steps of at least 1, and a mode")
        differentiated = tuple(n for n, cls in LEARNERS.items() if _takes(cls, "inner_steps") and _takes(cls, "mode"))
        _require_known("learner", (self.learner,), (*differentiated, "imaml"))
        _require_known("network", (self.network,), tuple(NETWORKS))
        _require_known("mode", self.modes, MODES)

    def command(self) -> str:
        """The command that measures this."""
        words = ["quickstudy", "profile"]
        for name, value in asdict(self).items():
            text = ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
            words += ["--mode" if name == "modes" else f"--{name}", text]
        return shlex.join(words)


@dataclass(frozen=True)
class Measured:
    """One combination of mode and inner steps.

    Attributes:
        mode, steps: which.
        peak_bytes: peak memory of a meta-step above the baseline.
        wall_seconds: median wall-clock time of a meta-step.
        processor_seconds: median processor time of a meta-step, of all threads together.
        parameter_bytes: size of the network's parameters.
        counted_by: what told the peak.
        failure: why the numbers are missing.
    """

    mode: str
    steps: int
    peak_bytes: int | None = None
    wall_seconds: float | None = None
    processor_seconds: float | None = None
    parameter_bytes: int | None = None
    counted_by: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Profile:
    """A setup and what was measured of it."""

    setup: Setup
    rows: tuple[Measured, ...]

    @property
    def clock(self) -> str:
        """Which time counts: "processor" with one thread on a CPU, otherwise "wall-clock"."""
        return "processor" if self.setup.threads == 1 and self.setup.device == "cpu" else "wall-clock"

    def seconds(self, row: Measured) -> float | None:
        """The time of a meta-step by that clock."""
        return row.processor_seconds if self.clock == "processor" else row.wall_seconds

    def ratios(self, row: Measured) -> tuple[float | None, float | None]:
        """Peak memory and time over those of the reverse mode at the same number of inner steps."""
        reverse = next((r for r in self.rows if (r.mode, r.steps) == ("reverse", row.steps)), Measured("reverse", 0))
        return _over(row.peak_bytes, reverse.peak_bytes), _over(self.seconds(row), self.seconds(reverse))

    def growth(self, row: Measured) -> float | None:
        """Peak memory per further inner step, since the next smaller number of them, over the parameters' size."""
        smaller = [r for r in self.rows if r.mode == row.mode and r.steps < row.steps]
        before = max(smaller, key=lambda r: r.steps, default=None)
        if before is None or before.peak_bytes is None or row.peak_bytes is None:
            return None
        return _over((row.peak_bytes - before.peak_bytes) / (row.steps - before.steps), row.parameter_bytes)

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        found = [
            "peak: above the memory held after imports and one tiny task; 1 MB is 10⁶ bytes",
            f"ms: {self.clock} time of a meta-step, forward and backward; median of up to {self.setup.repeats}",
            "growth: of the peak per further inner step, in sizes of the network's parameters",
            "tasks: random numbers, as neither memory nor time depends on what is in them",
        ]
        if "implicit" in self.setup.modes and self.setup.learner in ("maml", "imaml"):
            found.append(f"implicit: measured as iMAML, with {ITERATIONS} conjugate gradient iterations")
        return found + [f"{r.mode}, {r.steps} steps: {r.failure}" for r in self.rows if r.failure]

    def as_dict(self) -> dict[str, Any]:
        """All numbers, versions, and the command."""
        rows = []
        for row in self.rows:
            memory, seconds = self.ratios(row)
            derived = {"peak_to_reverse": memory, "time_to_reverse": seconds, "growth": self.growth(row)}
            rows.append({**asdict(row), **derived})
        versions = {"quickstudy": quickstudy.__version__, "torch": torch.__version__}
        return {
            "command": self.setup.command(),
            "setup": asdict(self.setup),
            "versions": {**versions, "python": platform.python_version()},
            "machine": {"processor": platform.machine(), "system": platform.system()},
            "clock": self.clock,
            "notes": self.notes(),
            "rows": rows,
        }

    @staticmethod
    def from_dict(stored: dict[str, Any]) -> "Profile":
        """The profile that ``as_dict`` described."""
        setup: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in stored["setup"].items()}
        names = [field.name for field in fields(Measured)]
        return Profile(Setup(**setup), tuple(Measured(**{name: row[name] for name in names}) for row in stored["rows"]))


def run(setup: Setup, on_start: Callable[[str, int], object] = lambda mode, steps: None) -> Iterator[Measured]:
    """Measure every combination, each in a fresh process, after telling ``on_start`` its mode and steps.

    Raises:
        ValueError: the learner refuses the mode, the network or the task.
    """
    for mode, steps in product(dict.fromkeys(setup.modes), sorted(set(setup.steps))):
        on_start(mode, steps)
        yield measure_apart(setup, mode, steps)


def measure_apart(setup: Setup, mode: str, steps: int) -> Measured:
    """One combination, in a fresh process that is ended after ``setup.timeout`` seconds."""
    asked = json.dumps({"setup": asdict(replace(setup, modes=(mode,), steps=(steps,)))})
    command = [sys.executable, "-m", "quickstudy.profiling", asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=setup.timeout, check=False)
    except subprocess.TimeoutExpired:
        return Measured(mode, steps, failure=f"took longer than {setup.timeout} s: raise --timeout")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        hint = " (killed: out of memory?)" if done.returncode == -9 else ""
        return Measured(mode, steps, failure=f"the process ended with status {done.returncode}{hint}: {last}")
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise ValueError(f"{setup.learner} with mode {mode!r} on {setup.network}: {answer['refused']}")
    return Measured(**answer)


def measure_here(setup: Setup, mode: str, steps: int) -> Measured:
    """One combination, in this process, whose threads and allocator it sets."""
    use_threads(setup.threads)
    return_freed_memory()
    device = torch.device(setup.device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[setup.network][0]().to(device)
    learner = build(setup, network, mode, steps).to(device)
    episodes = random_tasks(setup, device)
    tiny = random_tasks(replace(setup, way=2, shot=1, queries=1, tasks=1), device)
    _meta_step(build(setup, network, mode, 1).to(device), tiny)
    peak, counted_by = peak_above(lambda: _meta_step(learner, episodes), device)
    keep_freed_memory()
    seconds, processor_seconds = median_seconds(lambda: _meta_step(learner, episodes), setup.repeats, device)
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    return Measured(mode, steps, peak, seconds, processor_seconds, size, counted_by)


def build(setup: Setup, network: nn.Module, mode: str, steps: int) -> Learner:
    """The learner of a setup; iMAML for MAML with the implicit mode, whose minimum would forget θ without a pull."""
    cls: Any = LEARNERS[setup.learner]
    arguments: dict[str, Any] = {"inner_steps": steps}
    if cls in (MAML, IMAML) and mode == "implicit":
        # no tolerance to stop at: always as many iterations
        cls, solver = IMAML, {"strength": STRENGTH, "iterations": ITERATIONS, "tolerance": 1e-30}
        arguments |= solver
    elif cls is IMAML:
        raise ValueError(f"imaml has no mode {mode!r}; required is 'implicit': choose it, or the learner maml")
    else:
        arguments["mode"] = Implicit(iterations=ITERATIONS, strict=False) if mode == "implicit" else mode
    if _takes(cls, "inner_lr"):
        arguments["inner_lr"] = INNER_LR
    return cls(network, **arguments)


def random_tasks(setup: Setup, device: torch.device) -> Episode:
    """A meta-batch of standard normal numbers, always the same."""
    generator = torch.Generator().manual_seed(0)

    def part(each: int) -> Labelled:
        labels = torch.arange(setup.way).repeat(each).expand(setup.tasks, -1)  # (tasks, way · each)
        x = torch.randn(*labels.shape, *NETWORKS[setup.network][1], generator=generator)
        return Labelled(x.to(device), one_hot(labels, setup.way).to(device))

    return Episode(part(setup.shot), part(setup.queries))


def main(argument: str) -> None:
    """What the fresh process does: measure, and write one JSON object on standard output."""
    asked = json.loads(argument)["setup"]
    setup = Profile.from_dict({"setup": asked, "rows": []}).setup
    if sys.platform != "win32":
        signal.alarm(setup.timeout + 5)  # should nobody be left to end it
    try:
        answer = asdict(measure_here(setup, setup.modes[0], setup.steps[0]))
    except ValueError as error:
        answer = {"refused": str(error)}
    sys.stdout.write(json.dumps(answer))


def _meta_step(learner: Learner, episodes: Episode) -> None:
    unrolled(learner, episodes, strategy="loop").backward()
    learner.zero_grad(set_to_none=True)


def _takes(cls: type, argument: str) -> bool:
    return argument in inspect.signature(cls).parameters


def _over(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def _require_known(what: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{what} {name!r} cannot be profiled; choose among {', '.join(known)}")


if __name__ == "__main__":
    main(sys.argv[1])
