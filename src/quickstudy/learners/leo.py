"""Latent Embedding Optimization: gradient-based, in a learned space of few dimensions.

Andrei A. Rusu, Dushyant Rao, Jakub Sygnowski, Oriol Vinyals, Razvan Pascanu, Simon Osindero, Raia Hadsell.
Meta-Learning with Latent Embedding Optimization. ICLR 2019, arXiv:1807.05960.

The weights of a softmax layer on fixed features x are decoded from one latent code for each class. The codes are
inferred from the support set, and gradient steps adapt the codes instead of the weights.

    μ_n, log σ²_n = 1/(N K²) Σ_{k in class n} Σ_m Σ_{k' in class m} r(e(x_k), e(x_k'))
    z_n ~ q(z_n | support) = N(μ_n, σ²_n)                                              (2), section 2.3.2: encoding
    w_n ~ N(μᵈ_n, σᵈ_n²),  μᵈ_n, log σᵈ_n² = d(z_n)                                     (3), decoding
    L_support = cross-entropy(softmax_n(w_n · x), y)                                   (4)
    z' = z − α ∇_z L_support, ``inner_steps`` times, α learned                         (5), section 2.3.3
    w' = w − β ∇_w L_support from w = d(z'), ``finetune_steps`` times, β learned       (fine-tuning)
    meta-loss = L_query(w') + kl_weight · KL(q(z | support) ‖ N(0, 1))
        + encoder_penalty_weight · ‖stopgrad(z') − z‖²                                 (6), section 2.3.4
        + orthogonality_weight · ‖C_d − 1‖², C_d the correlations of the decoder's rows  (7)

e and d are linear, r is a network on pairs, all without biases.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import mask_absent, require_classes
from quickstudy.inner import AnyMode, LearnedRates, as_mode, unroll, with_tensors
from quickstudy.learner import Learner, cross_entropy

_START = 0.1  # about where the standard deviation of the codes starts, small beside their means


class Code(NamedTuple):
    """Attributes: mean, log_variance, the sample and the sample after the inner loop, each (way, latent)."""

    mean: Tensor
    log_variance: Tensor
    start: Tensor
    end: Tensor


class Softmax(NamedTuple):
    """Attributes: weight (way, d) of the adapted layer, and the support labels y (n, way)."""

    weight: Tensor
    y: Tensor


class LEO(Learner[Softmax]):
    """Infer, adapt and decode the weights of a softmax layer on the features of a backbone.

    Args:
        backbone: (n, *input) → (n, features), trained before.
        features: length of the embedding; 0 takes ``backbone.out_features``.
        latent: length of the code z of a class.
        inner_lr: where α starts.
        inner_steps: steps on the codes, at least 0.
        finetune_lr: where β starts.
        finetune_steps: steps on the weights, at least 0.
        dropout: of the features before they are encoded, in training.
        kl_weight, encoder_penalty_weight, orthogonality_weight: see above; each penalty is a mean over its numbers, so
            the weights mean the same at any way and size.
        stochastic: draw z and w in training. In evaluation their means count, and nothing is random.
        backbone_frozen: the backbone is no part of what is trained: it runs in evaluation mode and without gradients.
        mode: how both inner loops are differentiated, see ``unroll``.

    Raises:
        ValueError: a backbone of unknown length, or numbers out of range.

    Differs from the paper: classes with fewer support examples weigh as much as the others in (2); (4) is a mean over
    the examples; the noise of w is drawn once a task, not anew at every decoding, so that each inner loop descends one
    function; variances are exponentials, those of z times 0.01 and those of w times 2/(latent + d) (Glorot), so that
    training starts with little noise; weight decay is left to the outer optimizer. In evaluation mode the meta-loss is
    that of the queries alone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        features: int = 0,
        latent: int = 64,
        inner_lr: float = 1.0,
        inner_steps: int = 5,
        finetune_lr: float = 1e-3,
        finetune_steps: int = 5,
        dropout: float = 0.3,
        kl_weight: float = 1e-3,
        encoder_penalty_weight: float = 1e-9,
        orthogonality_weight: float = 1e-3,
        stochastic: bool = True,
        backbone_frozen: bool = True,
        mode: AnyMode = "reverse",
    ):
        super().__init__()
        d = features or getattr(backbone, "out_features", None)
        if not isinstance(d, int) or d < 1:
            raise ValueError("the backbone does not say its out_features; required is their number: pass features=")
        if latent < 1 or min(inner_steps, finetune_steps) < 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"latent={latent}, inner_steps={inner_steps}, finetune_steps={finetune_steps}, dropout={dropout}; "
                "required are at least 1, 0 and 0, and 0 ≤ dropout < 1"
            )
        if min(kl_weight, encoder_penalty_weight, orthogonality_weight) < 0:
            raise ValueError("a penalty has a weight below 0; required is at least 0 of each: 0 switches it off")
        as_mode(mode)
        self.backbone, self.features, self.latent = backbone, features, latent
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.finetune_lr, self.finetune_steps = finetune_lr, finetune_steps
        self.dropout, self.kl_weight, self.encoder_penalty_weight = dropout, kl_weight, encoder_penalty_weight
        self.orthogonality_weight, self.stochastic = orthogonality_weight, stochastic
        self.backbone_frozen = backbone_frozen
        self.mode: AnyMode = mode
        if backbone_frozen:
            backbone.requires_grad_(False)
        self.encoder = nn.Linear(d, latent, bias=False)
        width = 2 * latent
        self.relation: Any = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(3)])
        self.decoder = nn.Linear(latent, 2 * d, bias=False)
        self.latent_rate = LearnedRates({"z": torch.zeros(1, 1)}, inner_lr)
        self.weight_rate = LearnedRates({"w": torch.zeros(1, 1)}, finetune_lr)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Softmax:
        """Encode, step on the codes, decode, step on the weights."""
        return self._adapt(support)[1]

    def predict(self, adapted: Softmax, x: Tensor) -> Tensor:
        """w · x for each class, (m, way)."""
        return mask_absent(self.embed(x) @ adapted.weight.T, adapted.y)

    def meta_loss(self, episode: Episode) -> Tensor:
        """Equation (6), in evaluation mode without its penalties."""
        support, query = episode
        code, adapted = self._adapt(support)
        loss = self.loss(self.predict(adapted, query.x), query.y)
        return loss + self.penalty(code) if self.training else loss

    def penalty(self, code: Code) -> Tensor:
        """The last three terms of (6) and (7), a scalar."""
        start, end = code.start, code.end.detach()
        return (
            self.kl_weight * kl_to_standard_normal(code.mean, code.log_variance).mean()
            + self.encoder_penalty_weight * (end - start).square().mean()
            + self.orthogonality_weight * off_orthogonal(self.decoder.weight)
        )

    def passes(self, episode: Episode) -> list[Callable[[], Any]]:
        """None for a frozen backbone, whose statistics stay as they are."""
        return [] if self.backbone_frozen else super().passes(episode)

    def embed(self, x: Tensor) -> Tensor:
        """The features (n, d)."""
        if not self.backbone_frozen:
            return self.backbone(x).flatten(1)
        tensors = {**dict(self.backbone.named_parameters()), **dict(self.backbone.named_buffers())}
        frozen = with_tensors(self.backbone, tensors)  # a replica, so that the mode of the backbone itself stays
        with torch.no_grad():
            return (frozen.eval() if tensors else frozen)(x).flatten(1)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Equation (2): the means and log-variances (way, latent) of the codes.

        Args:
            x: (n, d) features.
            y: (n, way) labels, an all-zero row counts for nothing.
        """
        h = self.encoder(F.dropout(x, self.dropout, self.training))  # (n, latent)
        first, second, last = (layer.weight for layer in self.relation)
        # of the pair (i, j): the first layer on each half alone, the last one, which is linear, on the means below
        one, other = h @ first[:, : self.latent].T, h @ first[:, self.latent :].T  # (n, 2·latent)
        pairs = F.relu(F.relu(one.unsqueeze(1) + other.unsqueeze(0)) @ second.T)  # (n, n, 2·latent)
        shots = y.sum(0)
        own = y / shots.clamp(min=1)  # (n, way) the weight of an example in its class
        every = own.sum(1) / (shots > 0).sum().clamp(min=1)  # (n,) and among all classes
        code = torch.einsum("in,j,ijc->nc", own, every, pairs) @ last.T
        return code[:, : self.latent], code[:, self.latent :] + 2 * math.log(_START)

    def decode(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """Equation (3): weights (way, d), their means without noise (way, d)."""
        mean, log_variance = self.decoder(z).chunk(2, -1)
        if noise is None:
            return mean
        glorot = 2 / (self.latent + mean.shape[-1])
        return mean + (glorot**0.5) * (log_variance / 2).exp() * noise

    def _adapt(self, support: Labelled) -> tuple[Code, Softmax]:
        require_classes(support.y)
        x, y = self.embed(support.x), support.y
        mean, log_variance = self.encode(x, y)
        start, noise = mean, None
        if self.stochastic and self.training:
            start = mean + (log_variance / 2).exp() * torch.randn_like(mean)
            noise = torch.randn_like(x[:1].expand(y.shape[-1], -1))  # (way, d)

        def loss(weight: Tensor) -> Tensor:
            return cross_entropy(x @ weight.T, y)

        end = unroll(
            self.latent_rate,
            lambda params: loss(self.decode(params["z"], noise)),
            {"z": start},
            steps=self.inner_steps,
            mode=self.mode,
        )["z"]
        weight = unroll(
            self.weight_rate,
            lambda params: loss(params["w"]),
            {"w": self.decode(end, noise)},
            steps=self.finetune_steps,
            mode=self.mode,
        )["w"]
        return Code(mean, log_variance, start, end), Softmax(weight, y)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) of each number, in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def off_orthogonal(weight: Tensor) -> Tensor:
    """The mean of (C − 1)², C the correlations (latent, latent) between what the numbers of a code add to the output.

    Args:
        weight: (out, latent), whose columns these are.
    """
    unit = F.normalize(weight, dim=0)
    c = unit.T @ unit
    return (c - torch.eye(len(c), dtype=c.dtype, device=c.device)).square().mean()
