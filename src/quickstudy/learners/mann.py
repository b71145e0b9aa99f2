"""Memory-augmented neural network: memory-based, a recurrent network that binds examples to labels in a memory.

Adam Santoro, Sergey Bartunov, Matthew Botvinick, Daan Wierstra, Timothy Lillicrap. One-shot Learning with
Memory-Augmented Neural Networks. ICML 2016, arXiv:1605.06065.

A task is a sequence (x_1, 0), (x_2, y_1), (x_3, y_2), ...: the label of an example comes one step after it. A
controller reads the pair and gives, for each head, a key k_t and a gate α. With a memory M of N rows and n heads:

    K(k_t, M(i)) = k_t · M(i) / (‖k_t‖ ‖M(i)‖)                        (2)
    w^r_t = softmax(β_t K(k_t, M_{t−1}))                              (3), with β_t = 1
    r_t = Σ_i w^r_t(i) M_{t−1}(i)                                     (4)
    w^u_t = γ w^u_{t−1} + w^r_t + w^w_t                               (5), summed over the heads
    w^lu_t(i) = 1 for the n rows of least w^u_t(i), otherwise 0       (6)
    w^w_t = σ(α) w^r_{t−1} + (1 − σ(α)) w^lu_{t−1}                    (7)
    M_t(i) = M_{t−1}(i) + w^w_t(i) a_t                                (8), with a_t = k_t, after erasing

The label of x_t is predicted by a linear layer from the controller's state and the vectors r_t that were read.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from quickstudy.episode import Episode, Labelled
from quickstudy.functional import mask_absent, require_classes
from quickstudy.learner import cross_entropy
from quickstudy.sequences import OnlineLearner, features_of, in_random_order, to_slots, with_labels_permuted


class State(NamedTuple):
    """What is carried from step to step.

    Attributes:
        hidden, cell: (width,) of the controller.
        shown: (d,) the embedding of x_{t−1}.
        label: (classes,) y_{t−1}.
        memory: (slots, word) M.
        read: (heads, slots) w^r of the last step.
        usage: (slots,) w^u.
        vectors: (heads, word) r of the last step.
    """

    hidden: Tensor
    cell: Tensor
    shown: Tensor
    label: Tensor
    memory: Tensor
    read: Tensor
    usage: Tensor
    vectors: Tensor


class Remembered(NamedTuple):
    """Attributes: the state after the support set, and its labels y (n, way), which say which classes are there."""

    state: State
    y: Tensor


class Look(NamedTuple):
    """What one step sees before it writes: the logits (..., classes), and what the next state is made of."""

    logits: Tensor
    x: Tensor
    hidden: Tensor
    cell: Tensor
    words: Tensor
    gates: Tensor
    read: Tensor
    vectors: Tensor


class MANN(OnlineLearner[Remembered]):
    """Walk the support set as a sequence, then look at each query with the memory that this left.

    Support examples are presented in the order in which they are given; rows of padding change nothing. A query is one
    more step after the last support example, each by itself; it is not written.

    Args:
        backbone: (n, *input) → (n, d); the paper's images go to the controller as they are: ``nn.Flatten()``.
        classes: label slots, the most classes a task may have.
        features: d; 0 takes ``backbone.out_features``.
        width: of the controller.
        slots: rows of the memory, at least ``heads``.
        word: length of a row.
        heads: n, heads that read and write.
        decay: γ, in [0, 1].
        controller: "lstm" or "feedforward".
        sharpness: each head also gives β_t ≥ 1, as in a neural Turing machine; False is the paper's β_t = 1.
        shuffle: in training, draw the order of the sequence and the slots of the classes from torch's global generator.

    Raises:
        ValueError: a backbone of unknown length, or numbers out of range.

    Differs from the paper: β_t; a backbone before the controller, which also reads the embedding of x_{t−1}, to which
    the label belongs; each head writes a vector a_t of its own and not its key k_t; the memory is read before it is
    written, so that a key cannot find itself; head h of n writes to the h-th least used row, and these n rows are set
    to zero. A class without support examples gets no probability from ``predict``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        classes: int = 5,
        features: int = 0,
        width: int = 200,
        slots: int = 128,
        word: int = 40,
        heads: int = 4,
        decay: float = 0.95,
        controller: Literal["lstm", "feedforward"] = "lstm",
        sharpness: bool = True,
        shuffle: bool = True,
    ):
        super().__init__()
        d = features_of(backbone, features)
        if classes < 2 or min(width, word, heads) < 1 or slots < heads or not 0 <= decay <= 1:
            raise ValueError(
                f"classes={classes}, width={width}, word={word}, heads={heads}, slots={slots}, decay={decay}; required "
                "are at least 2, 1, 1, 1, as many slots as heads, and a decay in [0, 1]"
            )
        if controller not in ("lstm", "feedforward"):
            raise ValueError(f"controller={controller!r}; choose 'lstm' or 'feedforward'")
        self.backbone, self.classes, self.features, self.width = backbone, classes, features, width
        self.slots, self.word, self.heads, self.decay = slots, word, heads, decay
        self.controller, self.sharpness, self.shuffle = controller, sharpness, shuffle
        recurrent = width if controller == "lstm" else 0
        into = 2 * d + classes + heads * word + recurrent
        self.control = nn.Linear(into, 4 * width if recurrent else width)
        self.emit = nn.Linear(width, heads * (2 * word + 1 + sharpness))
        self.out = nn.Linear(width + heads * word, classes)

    def adapt(self, support: Labelled, query_x: Tensor | None = None) -> Remembered:
        """The state after the support sequence."""
        return Remembered(self._walk(support)[1], support.y)

    def predict(self, adapted: Remembered, x: Tensor) -> Tensor:
        """The logits (m, way) of one more step for each query, none of which is written."""
        logits = self._look(adapted.state, self.backbone(x).flatten(1)).logits
        return mask_absent(logits[:, : adapted.y.shape[1]], adapted.y)

    def walk(self, sequence: Labelled) -> Tensor:
        """The logits (n, way) of each example of a sequence, given before its label is seen."""
        return self._walk(sequence)[0]

    def meta_loss(self, episode: Episode) -> Tensor:
        """Cross-entropy in nats, a mean over every step of support and queries as one sequence."""
        x, y = (torch.cat([a, b]) for a, b in zip(episode.support, episode.query, strict=True))
        sequence = Labelled(x, y)
        if self.training and self.shuffle:
            sequence = in_random_order(Labelled(x, with_labels_permuted(y)))
        return cross_entropy(self.walk(sequence), sequence.y)

    def start(self, like: Tensor) -> State:
        """The state before the first of the embeddings (n, d): an empty memory and no label."""
        carried = ((self.width,), (self.width,), (like.shape[-1],), (self.classes,))
        memory = ((self.slots, self.word), (self.heads, self.slots), (self.slots,), (self.heads, self.word))
        return State(*(like.new_zeros(shape) for shape in (*carried, *memory)))

    def _walk(self, sequence: Labelled) -> tuple[Tensor, State]:
        require_classes(sequence.y)
        labels = to_slots(sequence.y, self.classes)
        embedded = self.backbone(sequence.x).flatten(1)  # (n, d)
        state, logits = self.start(embedded), []
        for x, label in zip(embedded.unbind(), labels.unbind(), strict=True):
            look = self._look(state, x)
            logits.append(look.logits)
            after, real = self._write(state, look, label), label.sum() > 0
            state = State(*(torch.where(real, new, old) for new, old in zip(after, state, strict=True)))
        return torch.stack(logits)[:, : sequence.y.shape[1]], state

    def _look(self, state: State, x: Tensor) -> Look:
        """The controller and equations (2) to (4) for x (..., d)."""
        some = x.shape[:-1]
        carried = (state.shown, state.label, state.vectors.flatten())
        parts = [x, *(part.expand(*some, -1) for part in carried)]
        if self.controller == "lstm":
            i, f, g, o = self.control(torch.cat([*parts, state.hidden.expand(*some, -1)], -1)).chunk(4, -1)
            cell = (f + 1).sigmoid() * state.cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        else:
            cell = hidden = self.control(torch.cat(parts, -1)).relu()
        emitted = self.emit(hidden).unflatten(-1, (self.heads, -1))  # (..., heads, 2 word + 1 or 2)
        keys, words = emitted[..., : 2 * self.word].tanh().chunk(2, -1)
        gates = emitted[..., 2 * self.word].sigmoid()
        similarity = unit(keys) @ unit(state.memory).T  # (..., heads, slots)
        if self.sharpness:
            similarity = (1 + softplus(emitted[..., -1:])) * similarity
        read = similarity.softmax(-1)
        vectors = read @ state.memory  # (..., heads, word)
        logits = self.out(torch.cat([hidden, vectors.flatten(-2)], -1))
        return Look(logits, x, hidden, cell, words, gates, read, vectors)

    def _write(self, state: State, look: Look, label: Tensor) -> State:
        """Equations (5) to (8)."""
        least = state.usage.detach().sort(stable=True).indices[: self.heads]  # head h takes the h-th least used row
        rows = torch.arange(self.slots, device=least.device)
        least = (least.unsqueeze(-1) == rows).to(state.memory)  # (heads, slots)
        gates = look.gates.unsqueeze(-1)
        written = gates * state.read + (1 - gates) * least
        memory = state.memory * (1 - least.sum(0)).unsqueeze(-1) + written.T @ look.words
        usage = self.decay * state.usage + (look.read + written).sum(0)
        return State(look.hidden, look.cell, look.x, label, memory, look.read, usage, look.vectors)


def unit(x: Tensor) -> Tensor:
    """x (..., d) divided by its length, so that a product of two is their cosine; a vector near 0 stays near 0."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-8).rsqrt()
