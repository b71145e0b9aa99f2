"""Bayesian MAML: gradient-based, a few particles in place of one network.

Jaesik Yoon, Taesup Kim, Ousmane Dia, Sungwoong Kim, Yoshua Bengio, Sungjin Ahn. Bayesian Model-Agnostic Meta-Learning.
NeurIPS 2018, arXiv:1806.03836. Stein variational gradient descent: Qiang Liu, Dilin Wang, NeurIPS 2016,
arXiv:1608.04471.

Learn M initialisations Θ_0 = {θ^1, ..., θ^M}. Adapting moves them together, towards the posterior of the task and away
from each other:

    θ^i ← θ^i + ε/M Σ_j [ k(θ^j, θ^i) ∇_{θ^j} log p(θ^j | D) + ∇_{θ^j} k(θ^j, θ^i) ]     (1)
    k(a, b) = exp(−‖a − b‖²/h),  h = median ‖θ^i − θ^j‖² / log M
    log p(θ | D) = Σ log N(y | f_θ(x), σ²) − λ/2 ‖θ‖² + const                           (regression; or log softmax)

    chaser Θⁿ: n steps from Θ_0 on the support set
    leader Θⁿ⁺ˢ: s more steps on support and queries together
    meta-loss = Σ_m ‖θ^{n,m} − stopgrad(θ^{n+s,m})‖²                                    (section 3.2, algorithm 3)

A prediction is the mean over the particles; their spread says how sure it is.
"""

import copy
import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.inner import AnyMode, Params, Unfused, as_mode, call, unroll
from quickstudy.learner import Learner, cross_entropy


class Stein:
    """Equation (1) as an update rule for the gradients of temperature · −log p at every particle.

    Each tensor holds the particles along its first axis, (M, d), and moves by a kernel of its own: give it one tensor.

    Args:
        lr: step size.
        temperature: what the gradients were scaled by; the repulsion ∇k is scaled alike, so that the particles settle
            where they would without.
    """

    def __init__(self, lr: float, temperature: float | Tensor):
        self.lr, self.temperature = lr, temperature

    def init(self, params: Params) -> None:
        """No state."""

    def step(self, params: Params, grads: Mapping[str, Tensor], state: None) -> tuple[Params, None]:
        """One step of all particles."""
        return {name: self._moved(p, grads[name]) for name, p in params.items()}, None

    def _moved(self, p: Tensor, g: Tensor) -> Tensor:
        k, h = kernel(p)
        # Σ_j ∇_{θ^j} k(θ^j, θ^i) = 2/h Σ_j k_ij (θ^i − θ^j); k is symmetric
        push = 2 / h * (torch.diag_embed(k.sum(1)) - k)
        rate = self.lr / len(p)
        return p + (rate * self.temperature * push) @ p - (rate * k) @ g


def kernel(particles: Tensor) -> tuple[Tensor, Tensor]:
    """The RBF kernel (M, M) of particles (M, d), and its bandwidth h (1 for one particle), both differentiable."""
    m = len(particles)
    centred = particles - particles.mean(0)  # distances stay, and large offsets do not cancel their digits
    products = centred @ centred.T
    norms = products.diagonal()
    squared = (norms.unsqueeze(0) + norms.unsqueeze(1) - 2 * products).clamp(min=0)
    if m == 1:
        return torch.ones_like(squared), torch.ones_like(norms[0])
    # the median by sorting all pairs, for which vmap has a rule
    pairs = squared[tuple(torch.triu_indices(m, m, 1, device=particles.device))].sort().values
    h = (pairs[(len(pairs) - 1) // 2] + pairs[len(pairs) // 2]) / (2 * math.log(m))
    h = h.clamp(min=1e-12)
    return torch.exp(-squared / h), h


class BayesianMAML(Learner[Params]):
    """Adapt several copies of a network by Stein variational gradient descent on the support set.

    φ is a dict: for each parameter of the network that requires gradients, one tensor (particles, *shape).

    Args:
        network: predicts by itself, (n, *input) → (n, way) logits or (n, d) targets: the way is fixed. The first
            particle; the others are copies with fresh random weights.
        particles: M, at least 1.
        inner_lr: ε, on the scale of MAML's: the steps are on the mean squared error (or mean cross-entropy) of the
            support set, with prior and repulsion scaled alike.
        inner_steps: n, at least 0.
        leader_steps: s, at least 1.
        noise: where σ starts, in units of the target.
        learn_noise: σ is a meta-parameter, fitted to the queries of the adapted particles; only for regression.
        prior: λ, the precision of a Gaussian prior around 0; 0 for none.
        objective: "chaser", or "likelihood": the negative log likelihood of the queries after n steps.
        regression: targets of several columns are numbers (a single column always is).
        mode: how the inner loop is differentiated, see ``unroll``.

    Raises:
        ValueError: numbers out of range.

    Differs from the paper: σ and λ are shared by all tasks and particles instead of having Gamma priors and being
    particles themselves; σ follows the likelihood of the queries with the particles held fixed (the chaser loss would
    lower it by standing still), and the particles' steps take it as a constant; distances are summed over all
    parameters of a particle and averaged over particles. Derivatives flow through the kernel and its bandwidth.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        particles: int = 5,
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        leader_steps: int = 5,
        noise: float = 0.1,
        learn_noise: bool = False,
        prior: float = 0.0,
        objective: Literal["chaser", "likelihood"] = "chaser",
        regression: bool = False,
        mode: AnyMode = "reverse",
    ):
        super().__init__()
        if particles < 1 or inner_steps < 0 or leader_steps < 1:
            raise ValueError(
                f"particles={particles}, inner_steps={inner_steps}, leader_steps={leader_steps}; required are at least "
                "1, 0 and 1"
            )
        if inner_lr < 0 or noise <= 0 or prior < 0:
            raise ValueError(
                f"inner_lr={inner_lr}, noise={noise}, prior={prior}; required are at least 0, above 0, and 0"
            )
        if objective not in ("chaser", "likelihood"):
            raise ValueError(f"objective={objective!r}; choose 'chaser' or 'likelihood'")
        as_mode(mode)
        self.network, self.particles, self.inner_lr, self.inner_steps = network, particles, inner_lr, inner_steps
        self.leader_steps, self.noise, self.learn_noise, self.prior = leader_steps, noise, learn_noise, prior
        self.objective, self.regression = objective, regression
        self.mode: AnyMode = mode
        self.others = nn.ModuleList([_fresh_copy(network) for _ in range(particles - 1)])
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise)), requires_grad=learn_noise)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Params:
        """Θⁿ: every particle after ``inner_steps`` steps, (particles, *shape) by name."""
        return self._steps(self.start(), support, self.inner_steps)

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """The mean over the particles (m, d), or the logarithm of their mean probabilities (m, way)."""
        each = self.each(adapted, x)
        if self.predicts_numbers(each):
            return each.mean(0)
        return each.log_softmax(-1).logsumexp(0) - math.log(len(each))

    def predictive(self, adapted: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (m, d) of a new target at x: the particles' spread, and the noise σ.

        Raises:
            ValueError: this learner tells classes apart.
        """
        each = self.each(adapted, x)
        if not self.predicts_numbers(each):
            raise ValueError("predictive() is about numbers, and this learner tells classes apart: use predict()")
        variance = each.var(0, correction=0) + (2 * self.log_noise).exp()
        return each.mean(0), variance.sqrt()

    def interval(self, adapted: Params, x: Tensor, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (m, d) that hold a new target with probability ``level``, were it normal.

        Raises:
            ValueError: a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level}; required is a probability between 0 and 1, such as 0.9")
        mean, deviation = self.predictive(adapted, x)
        half = NormalDist().inv_cdf((1 + level) / 2) * deviation
        return mean - half, mean + half

    def meta_loss(self, episode: Episode) -> Tensor:
        """The chaser loss, or the negative log likelihood of the queries in nats per target; a scalar."""
        support, query = episode
        chaser = self.adapt(support)
        if self.objective == "likelihood":
            return self.negative_log_likelihood(chaser, query)
        everything = Labelled(torch.cat([support.x, query.x]), torch.cat([support.y, query.y]))
        still = {name: p.detach() for name, p in chaser.items()}
        with torch.no_grad():
            leader = self._steps(still, everything, self.leader_steps)
        loss = chaser_loss(chaser, leader)
        if not self.learn_noise:
            return loss
        return loss + self.negative_log_likelihood(still, query)

    def negative_log_likelihood(self, adapted: Params, query: Labelled) -> Tensor:
        """−log N(y | mean, deviation²) of ``predictive``, in nats, a mean over the targets; or the cross-entropy."""
        if not self.predicts_numbers(query.y):
            return self.loss(self.predict(adapted, query.x), query.y)
        mean, deviation = self.predictive(adapted, query.x)
        return (((query.y - mean) / deviation).square() / 2 + deviation.log() + math.log(2 * math.pi) / 2).mean()

    def start(self) -> Params:
        """Θ_0."""
        networks = [dict(network.named_parameters()) for network in (self.network, *self.others)]
        names = [name for name, p in self.network.named_parameters() if p.requires_grad]
        return {name: torch.stack([network[name] for network in networks]) for name in names}

    def each(self, params: Params, x: Tensor) -> Tensor:
        """The output of every particle, (particles, m, way) or (particles, m, d)."""
        with Unfused():
            return torch.func.vmap(lambda p: call(self.network, p, x), randomness="different")(params)

    def passes(self, episode: Episode) -> list[Callable[[], Any]]:
        """One pass of every particle over the queries, one after the other."""
        phi = self.adapt(episode.support)
        particles = [{name: phi[name][i] for name in self.start()} for i in range(self.particles)]
        return [lambda p=p: call(self.network, p, episode.query.x) for p in particles]

    def inner_loss(self, params: Params, data: Labelled) -> Tensor:
        """temperature · Σ_m −log p(θ^m | D), a scalar."""
        each = self.each(params, data.x)
        if each.shape[1:] != data.y.shape:
            raise ValueError(
                f"the network gives {tuple(each.shape[1:])} for targets of shape {tuple(data.y.shape)}; required is "
                "one output for each target: build it for this number of classes or targets"
            )
        if self.predicts_numbers(data.y):
            loss = (each - data.y).square().flatten(1).mean(1).sum()
        else:
            loss = torch.stack([cross_entropy(one, data.y) for one in each]).sum()
        if self.prior:
            norm = torch.stack([p.square().sum() for p in params.values()]).sum()
            loss = loss + self.temperature(data.y) * self.prior / 2 * norm
        return loss

    def temperature(self, y: Tensor) -> Tensor:
        """What −log p is scaled by: 2σ²/targets, or 1/examples for classes."""
        if self.predicts_numbers(y):
            return 2 * (2 * self.log_noise.detach()).exp() / y.numel()
        return 1 / y.sum().clamp(min=1)

    def _steps(self, params: Params, data: Labelled, steps: int) -> Params:
        rule = Stein(self.inner_lr, self.temperature(data.y))
        start = {"particles": torch.cat([p.flatten(1) for p in params.values()], 1)}  # (M, d)

        def loss(moving: Params) -> Tensor:
            return self.inner_loss(_by_name(moving["particles"], params), data)

        return _by_name(unroll(rule, loss, start, steps=steps, mode=self.mode)["particles"], params)


def _by_name(particles: Tensor, like: Params) -> Params:
    """Particles (M, d) as tensors (M, *shape) of the names and shapes of ``like``."""
    parts = particles.split([p[0].numel() for p in like.values()], dim=1)
    return {name: part.view(p.shape) for (name, p), part in zip(like.items(), parts, strict=True)}


def chaser_loss(chaser: Params, leader: Params) -> Tensor:
    """‖θ^{n,m} − stopgrad(θ^{n+s,m})‖², a mean over the particles m."""
    return torch.stack([(p - leader[name].detach()).square().sum() / len(p) for name, p in chaser.items()]).sum()


def _fresh_copy(network: nn.Module) -> nn.Module:
    """The network with weights drawn anew; layers that cannot do so get their entries in another order."""
    twin = copy.deepcopy(network)
    for layer in twin.modules():
        own = list(layer.parameters(recurse=False))
        if not all(p.requires_grad for p in own):
            continue
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
        else:
            with torch.no_grad():
                for p in own:
                    p.copy_(p.flatten()[torch.randperm(p.numel())].view(p.shape))
    return twin
