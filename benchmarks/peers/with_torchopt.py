"""TorchOpt (Ren et al. 2022): ``MetaSGD`` as in its MAML example, and the functional ``sgd``."""

from torch import Tensor
from torch.func import functional_call

from peers.problem import TorchStep


class TorchOptMeta(TorchStep):
    """``MetaSGD`` steps the module itself, whose state is put back after each task."""

    def gradient(self, batch: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> list[Tensor | None]:
        """One backward for each task."""
        import torchopt

        self.clear()
        problem = self.problem
        inner = torchopt.MetaSGD(self.network, lr=problem.inner_lr)
        start = torchopt.extract_state_dict(self.network, by="reference")
        inner_start = torchopt.extract_state_dict(inner, by="reference")
        for sx, sy, qx, qy in batch:
            for _ in range(problem.inner_steps):
                inner.step(problem.loss(self.network(sx), sy))
            (problem.loss(self.network(qx), qy) / len(batch)).backward()
            torchopt.recover_state_dict(self.network, start)
            torchopt.recover_state_dict(inner, inner_start)
        return self.grads()


class TorchOptFunctional(TorchStep):
    """``FuncOptimizer(sgd)`` on tuples of parameters."""

    def gradient(self, batch: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> list[Tensor | None]:
        """One backward for each task."""
        import torchopt

        self.clear()
        problem, names = self.problem, list(self.theta)

        def loss(fast: tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
            return problem.loss(functional_call(self.network, dict(zip(names, fast, strict=True)), (x,)), y)

        for sx, sy, qx, qy in batch:
            inner = torchopt.FuncOptimizer(torchopt.sgd(lr=problem.inner_lr))
            fast = tuple(self.theta.values())
            for _ in range(problem.inner_steps):
                fast = inner.step(loss(fast, sx, sy), fast)
            (loss(fast, qx, qy) / len(batch)).backward()
        return self.grads()
