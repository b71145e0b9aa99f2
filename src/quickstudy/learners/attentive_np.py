"""Attentive neural process: in-context, each target looks at the support points that matter to it.

Hyunjik Kim, Andriy Mnih, Jonathan Schwarz, Marta Garnelo, Ali Eslami, Dan Rosenbaum, Oriol Vinyals, Yee Whye Teh.
Attentive Neural Processes. ICLR 2019, arXiv:1901.05761. The likelihood of several draws as a loss: Andrew Y. K. Foong,
Wessel P. Bruinsma, Jonathan Gordon, Yann Dubois, James Requeima, Richard E. Turner. Meta-Learning Stationary Stochastic
Process Prediction with Convolutional Neural Processes. NeurIPS 2020, arXiv:2007.01332.

    r_i = self-attention among the encodings h(x_i, y_i)
    r*(x) = cross-attention(queries e(x), keys e(x_1 ... x_n), values r_1 ... r_n)        the deterministic path
    q(z | s) = N(μ, σ²),  (μ, σ) = v(mean of the encodings of s)                          the latent path
    y ~ N(g(x, r*(x), z))                                                                 section 3
    ELBO = E_{q(z | support, queries)} log p(y | x, r*, z) − KL(q(z | support, queries) ‖ q(z | support))     (3)

With ``latent=False``, the default, there is no z and the loss is the negative log likelihood, as in a CNP.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.backbones import MLP
from quickstudy.backbones.attention import Attention, AttentionBlock
from quickstudy.episode import Episode, Labelled
from quickstudy.learner import check_prediction
from quickstudy.learners.neural_process import NeuralProcess, log_normal, mean_and_deviation, require_sizes


class Context(NamedTuple):
    """Attributes: keys and values (n, width) of the support points; mean and deviation (latent_features,) of z."""

    keys: Tensor
    values: Tensor
    mean: Tensor
    deviation: Tensor


class AttentiveNP(NeuralProcess[Context]):
    """Predict numbers and how sure they are by attention to the points seen.

    Args:
        in_features: numbers per input; inputs with several axes are flattened.
        out_features: numbers per target.
        width: of encodings and hidden layers, a multiple of ``heads``.
        layers: hidden layers of each encoder and of the decoder.
        heads: of every attention.
        self_attention: blocks of attention among the support points, at least 0.
        latent: have a latent variable z, one for the whole function.
        latent_features: length of z.
        objective: of the latent path: "elbo", equation (3), or "likelihood", −log of the mean of the likelihoods of
            ``samples`` draws of z given the support set (Foong et al.).
        samples: draws of z for a prediction; they are fixed, so that an answer is the same when asked twice.
        stochastic: draw z anew in training, as many times; otherwise the fixed draws count.
        least_deviation: the smallest standard deviation that each draw predicts, in units of the target.

    Raises:
        ValueError: numbers out of range; inputs or targets of another length.

    Differs from the paper: the deterministic path alone is the default. Self-attention comes in blocks with layer norm
    and a feed-forward part, and stands in the deterministic path only. Targets are the queries, not the support points
    as well, and all ``samples`` draws count in the ELBO, which is divided by the number of targets. The prediction of
    a latent model is the normal distribution with mean and variance of the mixture over its draws.
    """

    noise: Tensor

    def __init__(
        self,
        in_features: int = 1,
        out_features: int = 1,
        *,
        width: int = 128,
        layers: int = 2,
        heads: int = 8,
        self_attention: int = 1,
        latent: bool = False,
        latent_features: int = 32,
        objective: Literal["elbo", "likelihood"] = "likelihood",
        samples: int = 8,
        stochastic: bool = True,
        least_deviation: float = 0.01,
    ):
        super().__init__()
        sizes = {"width": width, "layers": layers, "latent_features": latent_features, "samples": samples}
        require_sizes(least_deviation, in_features=in_features, out_features=out_features, **sizes)
        if self_attention < 0:
            raise ValueError(f"self_attention={self_attention}; required is at least 0 blocks")
        if objective not in ("elbo", "likelihood"):
            raise ValueError(f"objective={objective!r}; choose 'elbo' or 'likelihood'")
        self.in_features, self.out_features, self.width, self.layers = in_features, out_features, width, layers
        self.heads, self.self_attention = heads, self_attention
        self.latent, self.latent_features, self.objective = latent, latent_features, objective
        self.samples, self.stochastic, self.least_deviation = samples, stochastic, least_deviation
        hidden = (width,) * layers
        self.encoder = MLP(in_features + out_features, hidden, width)
        self.among = nn.ModuleList([AttentionBlock(width, heads) for _ in range(self_attention)])
        self.place = MLP(in_features, hidden, width)  # e, of keys and queries
        self.across = Attention(width, heads)
        extra = latent_features if latent else 0
        self.decoder = MLP(in_features + width + extra, hidden, 2 * out_features)
        if latent:
            self.latent_encoder = MLP(in_features + out_features, hidden, width)
            self.latent_head = MLP(width, (width,), 2 * latent_features)
        draws = torch.randn(samples if latent else 1, extra, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", draws)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Context:
        """Encode the support points, and let them look at one another."""
        points = self.points(support)
        r = self.encoder(points)  # (n, width)
        for block in self.among:
            r = block(r, r)
        return Context(self.place(self.inputs(support.x)), r, *self.latent_of(points))

    def distribution(self, adapted: Context, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over the fixed draws, and the deviation of the mixture."""
        mean, deviation = self.each(adapted, x, adapted.mean + adapted.deviation * self.noise)
        if not self.latent:
            return mean[0], deviation[0]
        return mean.mean(0), (mean.var(0, correction=0) + deviation.square().mean(0)).sqrt()

    def meta_loss(self, episode: Episode) -> Tensor:
        """The negative log likelihood, or minus the ELBO, in nats per target number; a scalar."""
        support, query = episode
        context = self.adapt(support)
        if not self.latent:
            return self.negative_log_likelihood(context, query)
        fresh = self.training and self.stochastic
        noise = torch.randn_like(self.noise) if fresh else self.noise
        if self.objective == "likelihood":
            log_p = self._log_likelihoods(context, query, context.mean + context.deviation * noise)
            return (math.log(self.samples) - log_p.logsumexp(0)) / query.y.numel()
        everything = Labelled(torch.cat([support.x, query.x]), torch.cat([support.y, query.y]))
        mean, deviation = self.latent_of(self.points(everything))
        log_p = self._log_likelihoods(context, query, mean + deviation * noise)
        kl = kl_of_normals(mean, deviation, context.mean, context.deviation).sum()
        return (kl - log_p.mean()) / query.y.numel()

    def latent_of(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | points): mean and deviation, (latent_features,) each, empty without a latent path."""
        if not self.latent:
            return points.new_zeros(0), points.new_zeros(0)
        s = self.latent_encoder(points)  # (n, width)
        mean, raw = self.latent_head(s.sum(0, keepdim=True) / max(len(s), 1))[0].chunk(2, -1)
        return mean, 0.1 + 0.9 * raw.sigmoid()

    def each(self, context: Context, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (draws, m, out_features) for each z (draws, latent_features)."""
        x = self.inputs(x)
        r = self.across(self.place(x), context.keys, context.values)  # (m, width)
        seen = torch.cat([x, r], -1)
        draws, m = len(z), len(x)
        seen = seen.unsqueeze(0).expand(draws, -1, -1)
        inputs = torch.cat([seen, z.unsqueeze(1).expand(-1, m, -1)], -1)  # (draws, m, in + width + latent)
        output = self.decoder(inputs.flatten(0, 1)).unflatten(0, (draws, m))
        return mean_and_deviation(output, self.least_deviation)

    def _log_likelihoods(self, context: Context, query: Labelled, z: Tensor) -> Tensor:
        """log p(all queries | z) of each draw, (draws,)."""
        mean, deviation = self.each(context, query.x, z)
        check_prediction(mean[0], query.y)
        return log_normal(query.y, mean, deviation).flatten(1).sum(1)


def kl_of_normals(mean: Tensor, deviation: Tensor, other_mean: Tensor, other_deviation: Tensor) -> Tensor:
    """KL(N(mean, deviation²) ‖ N(other_mean, other_deviation²)) of each number, in nats."""
    ratio = deviation / other_deviation
    return (ratio.square() + ((mean - other_mean) / other_deviation).square() - 1) / 2 - ratio.log()
