"""Implicit MAML: gradient-based.

Aravind Rajeswaran, Chelsea Finn, Sham Kakade, Sergey Levine. Meta-Learning with Implicit Gradients. NeurIPS 2019,
arXiv:1909.04630.

Learn an initialisation θ that each task is pulled back to, and differentiate the minimum that its steps approach in
place of the steps: memory does not grow with them.

    φ(θ) = argmin_φ  L_support(φ) + ½λ‖φ − θ‖²              (equation 3, by ``inner_steps`` gradient steps from θ)
    dφ/dθ = (I + ∇²L_support(φ)/λ)⁻¹                        (lemma 1)
    meta-gradient = dφ/dθ · ∇L_query(φ)                     (algorithm 2, by ``iterations`` of conjugate gradients)
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from quickstudy.inner import SGD, Implicit, Proximal
from quickstudy.learners.gradient_based import GradientBased, Head


class IMAML(GradientBased):
    """Adapt a network by gradient descent with a pull to its start; differentiate where that ends.

    Args:
        network, head, adapts, regression: see ``GradientBased``. All that adapts is pulled to its start: a shared head
            to its zeros, a prototype head to the prototypes.
        strength: λ > 0 of the pull. The larger, the closer φ stays to θ, and the easier is the linear system.
        inner_lr: step size, above 0 and below 2/λ.
        inner_steps: enough of them to come near the minimum, or the meta-gradient is biased.
        solver: "cg", or "neumann": the series with ``inner_lr`` as its step, which is the derivative through
            ``iterations`` steps that all stand at φ (Lorraine, Vicol, Duvenaud 2020, arXiv:1911.02590).
        iterations: products with the Hessian for each meta-gradient, at least 1.
        tolerance: relative residual at which the solver stops before that.
        strict: raise ``DidNotConverge`` where the solver does not reach its tolerance, which ``iterations`` must allow
            for; otherwise take what there is, as the paper does.

    Raises:
        ValueError: ``strength``, ``inner_lr`` or the solver's options out of range.

    Differs from the paper: steps are plain gradient descent throughout. The head is pulled as well, and can be shared
    between classes, so one learner serves any way. Tasks run one by one, not under vmap, as each is solved to a
    tolerance of its own.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Head = "shared",
        strength: float = 2.0,
        inner_lr: float = 0.1,
        inner_steps: int = 16,
        solver: Literal["cg", "neumann"] = "cg",
        iterations: int = 5,
        tolerance: float = 1e-6,
        strict: bool = False,
        adapts: str | Sequence[str] = "*",
        regression: bool = False,
    ):
        if strength <= 0 or not 0 < inner_lr * strength < 2:
            raise ValueError(
                f"strength={strength}, inner_lr={inner_lr}; required are a pull and a step above 0 with a product "
                "below 2, beyond which the pull alone throws the steps away from θ: take a smaller inner_lr"
            )
        super().__init__(
            network,
            head=head,
            update_rule=Proximal(SGD(inner_lr), strength),
            inner_steps=inner_steps,
            mode=Implicit(solver=solver, tolerance=tolerance, iterations=iterations, step=inner_lr, strict=strict),
            adapts=adapts,
            inner_batch=0,
            accumulate=False,
            regression=regression,
        )
        self.strength, self.inner_lr = strength, inner_lr
        self.solver, self.iterations, self.tolerance, self.strict = solver, iterations, tolerance, strict
