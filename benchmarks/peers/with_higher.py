"""higher (Grefenstette et al. 2019): ``innerloop_ctx``, as in its MAML example."""

import torch
from torch import Tensor

from peers.problem import TorchStep


class Higher(TorchStep):
    """A patched copy of the network and a differentiable optimizer for each task; one backward for each."""

    def gradient(self, batch: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> list[Tensor | None]:
        """One backward for each task."""
        import higher

        self.clear()
        problem = self.problem
        inner = torch.optim.SGD(self.network.parameters(), lr=problem.inner_lr)
        for sx, sy, qx, qy in batch:
            with higher.innerloop_ctx(self.network, inner, copy_initial_weights=False) as (fast, optimizer):
                for _ in range(problem.inner_steps):
                    optimizer.step(problem.loss(fast(sx), sy))
                (problem.loss(fast(qx), qy) / len(batch)).backward()
        return self.grads()
