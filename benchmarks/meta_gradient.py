"""How exact the meta-gradient is: against central differences, and loop against vmap, in float64.

    python benchmarks/meta_gradient.py

Appends one line for each learner to benchmarks/results/meta_gradient.jsonl.
"""

import json
from pathlib import Path

import torch
from torch import nn

import quickstudy as qs

RESULTS = Path(__file__).parent / "results" / "meta_gradient.jsonl"


def tanh_network(norm: nn.Module) -> nn.Module:
    """A small network without kinks, with a norm layer whose affine parameters adapt."""
    return nn.Sequential(nn.Linear(16, 16), norm, nn.Tanh(), nn.Linear(16, 8))


LEARNERS = {
    "MAML, Conv4, shared head, 5 steps": (lambda: qs.MAML(qs.Conv4(width=16, image_size=16, norm="batch")), True),
    "MAML, Conv4, prototype head, 5 steps": (
        lambda: qs.MAML(qs.Conv4(width=16, image_size=16), head="prototypes"),
        True,
    ),
    "MAML, layer norm, 5 steps": (lambda: qs.MAML(tanh_network(nn.LayerNorm(16)), inner_lr=0.5), False),
    "MAML, batch norm, 5 steps": (
        lambda: qs.MAML(tanh_network(nn.BatchNorm1d(16, track_running_stats=False)), inner_lr=0.5),
        False,
    ),
    "ProtoNet, Conv4": (lambda: qs.ProtoNet(qs.Conv4(width=16, image_size=16)), True),
}


def main() -> None:
    """Measure and store."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w") as file:
        for name, (build, images) in LEARNERS.items():
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(120, *((1, 16, 16) if images else (16,)), generator=generator)
            tasks = qs.ClassTasks(x, [i // 12 for i in range(120)], way=5, shot=1, queries=5)
            batch, learner = tasks.sample(3, generator=generator), build().eval()
            check = qs.check_meta_gradient(learner, qs.task(batch, 0))
            loop, vmap = (
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(learner.parameters()))])
                for loss in (qs.unrolled(learner, batch, strategy=s) for s in ("loop", "vmap"))
            )
            line = {
                "learner": name,
                "differences_relative_error": check.relative_error,
                "loop_vmap_relative_error": float((loop - vmap).norm() / loop.norm()),
                "torch": torch.__version__,
                "command": "python benchmarks/meta_gradient.py",
            }
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
