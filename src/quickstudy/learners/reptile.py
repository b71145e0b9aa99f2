"""Reptile: gradient-based, first order.

Alex Nichol, Joshua Achiam, John Schulman. On First-Order Meta-Learning Algorithms. 2018, arXiv:1803.02999.

Learn an initialisation θ that is near to what each task's own training ends at; nothing is differentiated through.

    φ = U^k(θ): k inner steps on the examples of a task          (algorithm 1)
    θ ← θ + ε/n Σ_T (φ_T − θ)                                    (algorithm 2, batched)

The meta-loss is ½‖θ − stopgrad(φ)‖², whose gradient θ − φ any optimizer takes; plain SGD with lr = ε is the step above.
Its value says how far a task moves the network, not how well it does.
"""

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.inner import SGD, UpdateRule, unroll
from quickstudy.learners.gradient_based import GradientBased, Head


class Reptile(GradientBased):
    """Move the network towards what each task's training makes of it; at test, adapt by the same training.

    Args:
        network, head, inner_batch, regression: see ``GradientBased``. A head is made for each task and is no part of θ.
        inner_lr: step size, at least 0.
        inner_steps: of ``adapt``.
        train_steps: inner steps in meta-training, at least 1; None takes ``inner_steps``.
        rule: another update rule than SGD(inner_lr), see ``quickstudy.inner``.

    Raises:
        ValueError: a negative ``inner_lr``, ``train_steps`` below 1.

    Differs from the paper: inner steps are plain gradient descent unless a rule says otherwise (the paper: Adam without
    momentum), and take the whole set unless ``inner_batch`` says otherwise. The head starts anew for each task, so one
    learner serves any way, and in meta-training too it is made of the support set alone, in which each class needs an
    example; with head=None the last layer is meta-learned, as in the paper. The meta-gradient is the
    mean of θ − φ over the tasks of a meta-batch: it grows with inner_lr and the steps, and shrinks as tasks are learned
    by smaller moves.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        head: Head = "shared",
        inner_lr: float = 0.1,
        inner_steps: int = 10,
        train_steps: int | None = None,
        rule: UpdateRule | None = None,
        inner_batch: int = 0,
        regression: bool = False,
    ):
        if train_steps is not None and train_steps < 1:
            raise ValueError(f"train_steps={train_steps}; required is at least 1 inner step, or None for inner_steps")
        super().__init__(
            network,
            head=head,
            update_rule=rule or SGD(inner_lr),
            inner_steps=inner_steps,
            mode="first_order",
            adapts="*",
            inner_batch=inner_batch,
            accumulate=False,
            regression=regression,
        )
        self.inner_lr, self.train_steps, self.rule = inner_lr, train_steps, rule

    def meta_loss(self, episode: Episode) -> Tensor:
        """½‖θ − stopgrad(φ)‖² over the network's parameters, with φ from support and query together.

        With head="prototypes" the support set alone makes the head: queries that made it too would be near their own
        prototypes from the start, and leave little to learn.
        """
        support, query = episode
        examples = Labelled(torch.cat([support.x, query.x]), torch.cat([support.y, query.y]))
        with torch.no_grad():
            steps = self.inner_steps if self.train_steps is None else self.train_steps
            losses = self.inner_losses(examples, fixed={})
            phi = unroll(self.update_rule, losses, self.start(support), steps=steps, mode=self.mode)
        theta = [(f"network.{name}", p) for name, p in self.network.named_parameters() if p.requires_grad]
        return torch.stack([0.5 * (p - phi[name]).square().sum() for name, p in theta]).sum()
