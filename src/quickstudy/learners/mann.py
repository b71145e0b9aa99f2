"""Memory-augmented neural network: memory-based, a recurrent network that binds examples to labels in a memory.

Adam Santoro, Sergey Bartunov, Matthew Botvinick, Daan Wierstra, Timothy Lillicrap. One-shot Learning with
Memory-Augmented Neural Networks. ICML 2016, arXiv:1605.06065.

A task is a sequence (x_1, 0), (x_2, y_1), (x_3, y_2), ...: the label of an example comes one step after it. A
controller reads the pair and gives, for each head, a key k_t and a gate α. With a memory M of N rows and n heads:

    K(k_t, M_t(i)) = k_t · M_t(i) / (‖k_t‖ ‖M_t(i)‖)                  (2)
    w^r_t = softmax(β_t K(k_t, M_t))                                  (3), in the paper β_t = 1
    r_t = Σ_i w^r_t(i) M_t(i)                                         (4)
    w^u_t = γ w^u_{t−1} + w^r_t + w^w_t                               (5), summed over the heads
    w^lu_t(i) = 1 for the n rows of least w^u_t(i), otherwise 0       (6)
    w^w_{t+1} = σ(α) w^r_t + (1 − σ(α)) w^lu_t                        (7)
    M_{t+1}(i) = M_t(i) + w^w_{t+1}(i) a_t                            (8), after erasing; a_t = k_t + V y_t

The label of x_t is predicted by a linear layer from the controller's state and the vectors r_t that were read. (7) and
(8) wait for the label of x_t and then join it to the key by which x_t was looked for: a later x that is alike has a key
that is alike, finds this row, and reads the label.
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
        label: (classes,) y_{t−1}.
        memory: (slots, word) M_t.
        usage: (slots,) γ w^u_{t−1} + w^w_t, which is w^u_t before x_t is read.
        vectors: (heads, word) r of the last step.
    """

    hidden: Tensor
    cell: Tensor
    label: Tensor
    memory: Tensor
    usage: Tensor
    vectors: Tensor


class Remembered(NamedTuple):
    """Attributes: the state after the support set, and its labels y (n, way), which say which classes are there."""

    state: State
    y: Tensor


class Look(NamedTuple):
    """What one step sees before it writes: the logits (..., classes), and what the next state is made of."""

    logits: Tensor
    hidden: Tensor
    cell: Tensor
    keys: Tensor
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

    Differs from the paper: β_t, which starts at 10; a backbone before the controller; k_t is given by the controller's
    state and the embedding, not by the state alone; a linear code V y_t of the label is added to what is written, and
    the row is written when that label comes, with k_t; head h of n writes to the h-th least used row, and these n rows
    are set to zero. A class without support examples gets no probability from ``predict``.
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
        decay: float = 0.99,
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
        into = d + classes + heads * word + recurrent
        self.control = nn.Linear(into, 4 * width if recurrent else width)
        self.emit = nn.Linear(width + d, heads * (word + 1 + sharpness))
        self.bind = nn.Linear(classes, heads * word, bias=False)  # V
        self.out = nn.Linear(width + heads * word, classes)
        biases = self.emit.bias.detach().view(heads, -1)
        nn.init.constant_(biases[:, word], -3.0)  # σ(α) is small: new rows are written
        if sharpness:
            nn.init.constant_(biases[:, word + 1], 9.0)  # β is about 10: a row that fits stands out among many

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
        """The state before the first example, of the type of ``like``: an empty memory and no label."""
        carried = ((self.width,), (self.width,), (self.classes,))
        memory = ((self.slots, self.word), (self.slots,), (self.heads, self.word))
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
        none = embedded.new_zeros(0, self.classes)
        return (torch.stack(logits) if logits else none)[:, : sequence.y.shape[1]], state

    def _look(self, state: State, x: Tensor) -> Look:
        """The controller and equations (2) to (4) for x (..., d)."""
        some = x.shape[:-1]
        carried = (state.label, state.vectors.flatten())
        parts = [x, *(part.expand(*some, -1) for part in carried)]
        if self.controller == "lstm":
            i, f, g, o = self.control(torch.cat([*parts, state.hidden.expand(*some, -1)], -1)).chunk(4, -1)
            cell = (f + 1).sigmoid() * state.cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        else:
            cell = hidden = self.control(torch.cat(parts, -1)).relu()
        emitted = self.emit(torch.cat([hidden, x], -1)).unflatten(-1, (self.heads, -1))  # (..., heads, word + 1 or 2)
        keys = emitted[..., : self.word].tanh()
        gates = emitted[..., self.word].sigmoid()
        similarity = unit(keys) @ unit(state.memory).T  # (..., heads, slots)
        if self.sharpness:
            similarity = (1 + softplus(emitted[..., -1:])) * similarity
        read = similarity.softmax(-1)
        vectors = read @ state.memory  # (..., heads, word)
        logits = self.out(torch.cat([hidden, vectors.flatten(-2)], -1))
        return Look(logits, hidden, cell, keys, gates, read, vectors)

    def _write(self, state: State, look: Look, label: Tensor) -> State:
        """Equations (5) to (8) with y_t, the label (classes,) of the x_t that was looked at."""
        usage = state.usage + look.read.sum(0)
        least = usage.detach().sort(stable=True).indices[: self.heads]  # head h takes the h-th least used row
        rows = torch.arange(self.slots, device=least.device)
        least = (least.unsqueeze(-1) == rows).to(state.memory)  # (heads, slots)
        gates = look.gates.unsqueeze(-1)
        written = gates * look.read + (1 - gates) * least
        words = look.keys + self.bind(label).unflatten(-1, (self.heads, -1))  # (heads, word), a_t
        memory = state.memory * (1 - least.sum(0)).unsqueeze(-1) + written.T @ words
        return State(look.hidden, look.cell, label, memory, self.decay * usage + written.sum(0), look.vectors)


def unit(x: Tensor) -> Tensor:
    """x (..., d) divided by its length, so that a product of two is their cosine; a vector near 0 stays near 0."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-2).rsqrt()
