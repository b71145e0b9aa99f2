"""How fast the meta-gradient is, and how exact: quickstudy and its peers in turn, in one run.

    pip install -e '.[bench]'
    python benchmarks/speed.py --job all                 # appends to benchmarks/results/speed.jsonl
    python benchmarks/speed.py --job mlp --quick         # small sizes, nothing is stored
    python benchmarks/speed.py --table                   # writes the tables of docs/speed.md from the stored lines

The candidates take turns (A B C A B C ...), so that a change of the machine's speed meets all of them; only ratios of
medians within one run count. Short steps come in fives. A timed step is the meta-gradient of one meta-batch, without
sampling and without the outer optimizer. Each candidate is set up on other weights and another meta-batch than the
ones it is judged on, so one that remembers values instead of operators shows a wrong gradient. Errors are relative,
‖g − g₆₄‖/‖g₆₄‖ with g₆₄ of the plain PyTorch loop in float64 (for the implicit mode of quickstudy's own loop in
float64).
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peers.jobs import PLAIN, Candidate, Job, jobs
from peers.ours import Ours
from peers.plain import PlainLoop
from peers.problem import Problem, Step, Variant, Weights
from peers.table import write_table

from quickstudy import Episode, Labelled
from quickstudy.process import keep_freed_memory, use_threads

JOBS = ("mlp", "conv4", "modes", "transformer", "lstm", "networks", "all")
RESULTS = Path(__file__).parent / "results" / "speed.jsonl"
WARM_UPS = 2
# what a library raises when it cannot serve; the first line of it becomes the candidate's row
REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError, ImportError)


class Measured:
    """One candidate while it is measured.

    Args:
        candidate: it.
    """

    def __init__(self, candidate: Candidate):
        self.candidate = candidate
        self.step: Step | None = None
        self.batch: Any = None
        self.times: list[float] = []
        self.first_calls = 0.0
        self.found: dict[str, Any] = {}
        self.refused = ""


class Judge:
    """Float64 references of a job, and the errors against them.

    Args:
        problem: what is computed.
        weights: where.
        batch: on which tasks, in float64.
        tasks: of how many tasks the errors are measured one by one.
    """

    def __init__(self, problem: Problem, weights: Weights, batch: Episode, tasks: int):
        self.problem, self.weights, self.batch = problem, weights, batch
        self.single = min(tasks, len(batch.support.x))
        self._known: dict[Variant, list[Weights]] = {}

    def reference(self, variant: Variant) -> list[Weights]:
        """The gradient of each task."""
        variant = Variant("reverse", variant.head_only) if variant.mode == "recompute" else variant
        if variant not in self._known:
            cpu = torch.device("cpu")
            step: Step = (
                Ours(self.problem, torch.float64, cpu, strategy="loop", variant=variant)
                if variant.mode == "implicit"
                else PlainLoop(self.problem, torch.float64, cpu, variant)
            )
            step.load(self.weights)
            self._known[variant] = [gradient_of(step, only(self.batch, i)) for i in range(len(self.batch.support.x))]
        return self._known[variant]

    def whole(self, gradient: Weights, variant: Variant) -> float:
        """The relative error of the meta-batch's gradient."""
        tasks = self.reference(variant)
        return error(gradient, {name: torch.stack([g[name] for g in tasks]).mean(0) for name in tasks[0]})

    def one_by_one(self, step: Step, candidate: Candidate, like: Episode) -> list[float]:
        """The relative errors of single tasks' gradients."""
        found = []
        for i in range(self.single):
            # a recorded graph serves one shape: there, a meta-batch of the same task again and again
            batch = only(like, i, 1 if candidate.task_by_task else len(like.support.x))
            found.append(error(gradient_of(step, batch), self.reference(candidate.variant)[i]))
        return found


def measure(job: Job, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All candidates of a job: one line for each."""
    device, problem = torch.device(args.device), job.problem
    generator = torch.Generator().manual_seed(0)
    tasks = job.tasks()
    batches = [cast(tasks.sample(job.meta_batch, generator=generator), torch.float64, "cpu") for _ in range(2)]
    weights, others = problem.weights(0), problem.weights(1)
    judge = Judge(problem, weights, batches[0], args.error_tasks)
    wanted = [c for c in job.candidates if c.name == PLAIN or any(word in c.name for word in args.candidates or [""])]
    running = [Measured(c) for c in wanted]

    for m in running:
        say(f"{job.name}: {m.candidate.name}: ")
        m.refused = missing(m.candidate) or attempt(
            lambda m=m: set_up(m, problem, (weights, others), batches, judge, device), args.limit
        )
        say(f"{m.refused or 'error {:.1e}, first calls {:.2f} s'.format(m.found['error_f32'], m.first_calls)}\n")

    alive = [m for m in running if not m.refused]
    for _ in range(args.repeats or (3 if args.quick else job.repeats)):
        for m in alive:
            assert m.step is not None
            gc.collect()
            m.times += turn(lambda m=m: m.step.gradient(m.batch), device)  # pyright: ignore[reportOptionalMemberAccess]
    for m in alive:
        m.step = m.batch = None
        if not args.no_float64:
            attempt(lambda m=m: in_float64(m, problem, weights, batches[0], judge, device), args.limit)

    medians = {m.candidate.name: median(m.times) for m in alive}
    return [line(m, medians) for m in running]


def set_up(
    m: Measured,
    problem: Problem,
    weights: tuple[Weights, Weights],
    batches: list[Episode],
    judge: Judge,
    device: torch.device,
) -> None:
    """Build the float32 candidate, call it on other weights and tasks, then measure its errors."""
    variant = m.candidate.variant
    judged, other = (cast(batch, torch.float32, device) for batch in batches)
    if m.candidate.package:
        importlib.import_module(m.candidate.package)  # an import is no set-up
    start = time.perf_counter()
    step = m.candidate.build(problem, torch.float32, device)
    step.load(weights[1])
    batch = step.prepare(other)
    for _ in range(WARM_UPS):
        seconds(lambda: step.gradient(batch), device)
    m.first_calls = time.perf_counter() - start
    step.load(weights[0])
    m.step, m.batch = step, step.prepare(judged)
    m.found["error_f32"] = judge.whole(step.named(step.gradient(m.batch)), variant)
    each = judge.one_by_one(step, m.candidate, judged)
    m.found["error_f32_task_median"], m.found["error_f32_task_worst"] = median(each), max(each)


def in_float64(
    m: Measured, problem: Problem, weights: Weights, batch: Episode, judge: Judge, device: torch.device
) -> None:
    """The error that is left in float64: whether it computes the same function."""
    step = m.candidate.build(problem, torch.float64, device)
    step.load(weights)
    gradient = gradient_of(step, cast(batch, torch.float64, device))
    m.found["error_f64"] = judge.whole(gradient, m.candidate.variant)


def line(m: Measured, medians: dict[str, float]) -> dict[str, Any]:
    """What is stored of a candidate."""
    found: dict[str, Any] = {"candidate": m.candidate.name, "mode": m.candidate.variant.mode}
    if m.refused:
        return {**found, "refused": m.refused}
    middle = medians[m.candidate.name]
    found |= {
        "median_s": round(middle, 6),
        "fastest_s": round(min(m.times), 6),
        "slowest_s": round(max(m.times), 6),
        "repeats": len(m.times),
        "ratio_to_plain_loop": round(medians[PLAIN] / middle, 3),
    }
    if m.candidate.against in medians:
        found |= {"against": m.candidate.against, "ratio_to_it": round(medians[m.candidate.against] / middle, 3)}
    # what the first calls took beyond the steps themselves
    found["setup_s"] = round(max(0.0, m.first_calls - WARM_UPS * middle), 3)
    return found | {key: float(f"{value:.2e}") for key, value in m.found.items()}


def missing(candidate: Candidate) -> str:
    """What to install, where a peer is not there."""
    if candidate.package and importlib.util.find_spec(candidate.package) is None:
        return f"{candidate.package} is not installed: pip install -e '.[bench]'"
    return ""


def attempt(what: Callable[[], None], limit: float) -> str:
    """Do it; the reason if it could not be done."""
    try:
        with limited(limit):
            what()
    except REFUSALS as problem:
        lines = [part.strip() for part in str(problem).splitlines() if part.strip()]
        return f"{type(problem).__name__}: {lines[0] if lines else ''}"[:240]
    return ""


@contextmanager
def limited(limit: float) -> Iterator[None]:
    """Give up after so many seconds (0 is never), as soon as Python gets a word in."""

    done = False

    def give_up(number: int, frame: Any) -> None:
        if not done:
            raise RuntimeError(f"not done after {limit:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit, 1)  # again and again: who is stopped may try something else
    try:
        yield
    finally:
        done = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def turn(step: Callable[[], Any], device: torch.device) -> list[float]:
    """The seconds of one step; of a short one, those of five that follow one which is not counted, as steps follow each
    other in training: what they need is in the processor's caches."""
    first = seconds(step, device)[0]
    return [first] if first > 0.2 else [seconds(step, device)[0] for _ in range(5)]


def seconds(what: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """How long it takes, with everything that it left to the device; and its result."""
    synchronize(device)
    start = time.perf_counter()
    result = what()
    synchronize(device)
    return time.perf_counter() - start, result


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gradient_of(step: Step, batch: Episode) -> Weights:
    """The meta-gradient of a meta-batch, in float64."""
    return step.named(step.gradient(step.prepare(batch)))


def error(gradient: Weights, reference: Weights) -> float:
    """‖g − r‖ / ‖r‖ over all tensors."""
    if set(gradient) != set(reference):
        raise ValueError(f"gradients of {sorted(gradient)} and of {sorted(reference)}; required are the same names")
    g, r = (torch.cat([x[name].flatten() for name in sorted(reference)]) for x in (gradient, reference))
    return float((g - r).norm() / r.norm())


def only(batch: Episode, i: int, times: int = 1) -> Episode:
    """A meta-batch of one task, so many times."""
    (sx, sy), (qx, qy) = batch
    parts = [t[i : i + 1].expand(times, *t.shape[1:]).contiguous() for t in (sx, sy, qx, qy)]
    return Episode(Labelled(*parts[:2]), Labelled(*parts[2:]))


def cast(batch: Episode, dtype: torch.dtype, device: torch.device | str) -> Episode:
    """The meta-batch in that precision and place."""
    return Episode(*(Labelled(x.to(device, dtype), y.to(device, dtype)) for x, y in batch))


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What a line says about where and with what it was measured."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("quickstudy", "higher", "torchopt", "jax"):
        if importlib.util.find_spec(name) is not None:
            versions[name] = importlib.metadata.version(name)
    cuda = args.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions,
        "run": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]]),
    }


def processor() -> str:
    """Its name, where the system says it."""
    info = Path("/proc/cpuinfo")
    rows = info.read_text().splitlines() if info.exists() else []
    return next((row.split(":", 1)[1].strip() for row in rows if row.startswith("model name")), platform.machine())


def say(text: str) -> None:
    """To the terminal, at once."""
    sys.stderr.write(text)
    sys.stderr.flush()


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--job", "--part", choices=JOBS, default="all")
    parser.add_argument("--repeats", type=int, default=0, help="timed steps of each candidate; 0: as the job says")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; nothing is stored")
    parser.add_argument("--candidates", nargs="*", help="only those with one of these words in their names")
    parser.add_argument("--threads", type=int, default=0, help="of torch and JAX; 0: all processors")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--error-tasks", type=int, default=4, help="how many tasks' errors are measured one by one")
    parser.add_argument("--limit", type=float, default=900, help="seconds that a candidate may take to set up; 0: any")
    parser.add_argument("--no-float64", action="store_true", help="leave out what is computed in float64 at the end")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as `quickstudy train` does, for everybody")
    parser.add_argument("--out", type=Path, help="where lines are appended; by default benchmarks/results/speed.jsonl")
    parser.add_argument("--table", action="store_true", help="write docs/speed.md from the stored lines, and end")
    parser.add_argument("--check", action="store_true", help="with --table: only say whether the page is up to date")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Measure, print and store; or write the table."""
    args = arguments(given)
    if args.table:
        return write_table(args.out or RESULTS, check=args.check)
    use_threads(args.threads)
    if args.keep_freed_memory:
        keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    importlib.import_module("torch._dynamo")  # or whoever differentiates or optimises first would pay for it
    out = args.out or (None if args.quick else RESULTS)
    about = machine(args)
    for job in jobs(args.job, args.quick):
        head = {"job": job.name, "title": job.title, "quick": args.quick}
        lines = [{**head, **found, **about} for found in measure(job, args)]
        for entry in lines:
            sys.stdout.write(short(entry) + "\n")
        sys.stdout.flush()
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in lines)
    return 0


def short(entry: dict[str, Any]) -> str:
    """A line for the terminal."""
    name = f"{entry['job']:12} {entry['candidate']:36}"
    if "refused" in entry:
        return f"{name} refused: {entry['refused']}"
    other = f", {entry['ratio_to_it']:.2f} × {entry['against']}" if "against" in entry else ""
    return (
        f"{name} {1e3 * entry['median_s']:10.2f} ms, {entry['ratio_to_plain_loop']:6.2f} × plain{other}, "
        f"set-up {entry['setup_s']:.2f} s, error {entry['error_f32']:.1e} "
        f"(task {entry['error_f32_task_median']:.1e}, worst {entry['error_f32_task_worst']:.1e}; "
        f"float64 {entry.get('error_f64', float('nan')):.1e})"
    )


if __name__ == "__main__":
    sys.exit(main())
