"""What is kept of a task's examples: computed once each, and enough for learners that look at nothing else of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from quickstudy.backbones.norm import uses_batch_statistics
from quickstudy.estimators.examples import as_learner_reads
from quickstudy.estimators.learnt import embedding
from quickstudy.learner import Learner
from quickstudy.learners import LocalMatching, ProtoNet, SimpleShot


class Embedded(NamedTuple):
    """Attributes: the ids of examples, and z (n, d), what ``embed`` keeps of each."""

    ids: tuple[str, ...]
    z: Tensor


def embed(learner: Learner, x: Tensor) -> Tensor:
    """What is kept of examples (n, *input) that were read, (n, d): their embeddings, or the rows that it compares."""
    by = ("rows",) if type(learner) is LocalMatching else learner.embeds_by
    return embedding(learner, as_learner_reads(learner, x), by=by)


def wholes(learner: Learner, kept: Tensor) -> Tensor:
    """The embeddings z (n, d) in what ``embed`` keeps."""
    return learner.of_rows().embed(kept) if type(learner) is LocalMatching else kept


def embed_new(learner: Learner, ids: Sequence[str], x: Tensor, before: Embedded | None) -> Embedded:
    """The embeddings of examples, of which those that are there ``before`` are not computed again.

    Where one depends on the others of its batch, all are computed.
    """
    rows = (
        {} if before is None or uses_batch_statistics(learner) else {example: i for i, example in enumerate(before.ids)}
    )
    new = [i for i, example in enumerate(ids) if example not in rows]
    if before is None or len(new) == len(ids):
        return Embedded(tuple(ids), embed(learner, x))
    z = before.z[[rows.get(example, 0) for example in ids]]
    if new:
        z[new] = embed(learner, x[new])
    return Embedded(tuple(ids), z)


def head_of(learner: Learner) -> Learner | None:
    """The same learner as one of what ``embed`` keeps, where it looks at nothing else; otherwise None."""
    if type(learner) is LocalMatching:
        return learner.of_rows().eval()
    if type(learner) is SimpleShot:
        return SimpleShot(nn.Identity(), scale=learner.scale).eval()  # they are centred already
    return ProtoNet(nn.Identity()).eval() if type(learner) is ProtoNet else None


def tensor_bytes(held: object) -> int:
    """The memory of all tensors in something that a learner adapts: nested containers, dataclasses and modules."""
    if isinstance(held, Tensor):
        return held.nbytes
    if isinstance(held, nn.Module):
        return sum(tensor.nbytes for tensor in (*held.parameters(), *held.buffers()))
    if isinstance(held, Mapping):
        return sum(tensor_bytes(value) for value in held.values())
    if isinstance(held, list | tuple):
        return sum(tensor_bytes(value) for value in held)
    return sum(tensor_bytes(value) for value in vars(held).values()) if dataclasses.is_dataclass(held) else 0
