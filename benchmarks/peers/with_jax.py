"""JAX: ``jit(grad(mean(vmap(task loss))))`` of a multilayer perceptron, compiled once."""

import os
from typing import Any

import torch

from peers.problem import Problem, Weights
from quickstudy import Episode


class JaxMLP:
    """A network of linear layers with ReLU between them, named ``….weight`` and ``….bias`` in their order.

    Args:
        problem: a regression.
        dtype: float32 or float64.
        device: JAX runs on its own default device, which must be of this type.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype, device: torch.device):
        os.environ["NPROC"] = str(torch.get_num_threads())  # read when JAX starts its pool of threads
        import jax
        import jax.numpy as jnp

        if (jax.default_backend() == "cpu") != (device.type == "cpu"):
            raise RuntimeError(f"JAX runs on {jax.default_backend()}, not on {device.type}")
        jax.config.update("jax_enable_x64", True)
        self.problem, self.dtype = problem, {torch.float32: jnp.float32, torch.float64: jnp.float64}[dtype]
        self.theta: Any = None

        def loss(params: Any, x: Any, y: Any) -> Any:
            *hidden, (last, last_bias) = params
            for weight, bias in hidden:
                x = jnp.maximum(x @ weight.T + bias, 0)
            return jnp.mean((x @ last.T + last_bias - y) ** 2)

        def task_loss(params: Any, sx: Any, sy: Any, qx: Any, qy: Any) -> Any:
            fast = params
            for _ in range(problem.inner_steps):
                grads = jax.grad(loss)(fast, sx, sy)
                fast = jax.tree.map(lambda p, g: p - problem.inner_lr * g, fast, grads)
            return loss(fast, qx, qy)

        def meta_loss(params: Any, *batch: Any) -> Any:
            return jnp.mean(jax.vmap(task_loss, in_axes=(None, 0, 0, 0, 0))(params, *batch))

        self.meta_gradient = jax.jit(jax.grad(meta_loss))

    def load(self, weights: Weights) -> None:
        """Take these weights."""
        values = [self._array(p) for p in weights.values()]
        self.names = list(weights)
        self.theta = list(zip(values[::2], values[1::2], strict=True))

    def prepare(self, episodes: Episode) -> tuple[Any, ...]:
        """Support x and y, query x and y, as arrays with a task axis."""
        return tuple(self._array(t) for part in episodes for t in part)

    def gradient(self, batch: tuple[Any, ...]) -> Any:
        """One call of the compiled function, until its result is there."""
        import jax

        return jax.block_until_ready(self.meta_gradient(self.theta, *batch))

    def named(self, gradient: Any) -> Weights:
        """That gradient in float64."""
        import numpy as np

        flat = [torch.from_numpy(np.array(g, dtype=np.float64)) for layer in gradient for g in layer]
        return dict(zip(self.names, flat, strict=True))

    def _array(self, t: torch.Tensor) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(t.detach().cpu().double().numpy(), dtype=self.dtype)
