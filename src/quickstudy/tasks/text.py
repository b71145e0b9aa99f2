"""Sentences of one domain: read some, predict the words of others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quickstudy.data.text import EDGE, UNKNOWN, Vocabulary
from quickstudy.episode import Episode, Labelled, one_hot
from quickstudy.tasks.inputs import as_range, as_whole, encode


class TextTasks:
    """A task is a domain: sentences of it to learn from, and others whose tokens are to be predicted.

    An example is a sentence: x (length,) the edge and then its tokens, as integers; y (length, vocabulary) the token
    that follows each of them, one-hot, at last the edge again. Rows of y are all zero where nothing is to be predicted:
    behind the end of a sentence, and where the next character is unknown. Sentences that read the same up to the cut
    count once, so no query stands in its support set. y is dense: 4 · length · vocabulary bytes a sentence.

    Args:
        texts: sentences; those without a word are left out.
        groups: the domain of each.
        vocabulary: made of meta-training texts alone.
        shot: support sentences, or a range (lowest, highest) of which each meta-batch draws one number; 0 is allowed.
        queries: query sentences.
        length: tokens of an example; longer sentences are cut there. 0 takes the longest sentence.

    Attributes:
        domains: their names, sorted.
        length: tokens of an example.

    Raises:
        ValueError: texts and groups of different numbers, numbers out of range, or a domain with fewer sentences than
            shot + queries.
    """

    def __init__(
        self,
        texts: Sequence[str],
        groups: Any,
        vocabulary: Vocabulary,
        *,
        shot: int | tuple[int, int] = 20,
        queries: int = 20,
        length: int = 0,
    ):
        self.shot, self.queries = as_range("shot", shot), as_whole("queries", queries)
        if not 0 <= self.shot[0] <= self.shot[1] or self.queries < 1 or length < 0:
            raise ValueError(
                f"shot={shot}, queries={queries}, length={length}; required are at least 0, at least 1, and at least 0"
            )
        self.domains, domain = encode(groups, "groups")
        if len(domain) != len(texts) or not len(texts):
            raise ValueError(
                f"{len(texts)} texts and {len(domain)} groups were given; required is a text or more, and one group "
                "for each"
            )
        self.vocabulary = vocabulary
        read = ((g, (*vocabulary.encode(text), EDGE)) for g, text in zip(domain.tolist(), texts, strict=True))
        sentences = sorted(dict.fromkeys((g, tokens[: length or None]) for g, tokens in read if len(tokens) > 1))
        numbers = torch.tensor([g for g, _ in sentences], dtype=torch.int64)
        self.counts = torch.bincount(numbers, minlength=len(self.domains))
        self.offsets = self.counts.cumsum(0) - self.counts
        needed = self.shot[1] + self.queries
        if int(self.counts.min()) < needed:
            worst = int(self.counts.argmin())
            raise ValueError(
                f"domain {self.domains[worst]!r} has {int(self.counts[worst])} different sentences; required are shot "
                f"+ queries = {self.shot[1]} + {self.queries} = {needed}: lower one of them, raise length, or leave "
                "the domain out"
            )
        self.length = length or max(len(tokens) for _, tokens in sentences)
        self.x = torch.full((len(sentences), self.length), EDGE)
        self.next = torch.full((len(sentences), self.length), -1)
        for row, (_, tokens) in enumerate(sentences):
            self.x[row, : len(tokens)] = torch.tensor([EDGE, *tokens[:-1]])
            self.next[row, : len(tokens)] = torch.tensor(tokens)
        self.next[self.next == UNKNOWN] = -1

    def __repr__(self) -> str:
        return (
            f"TextTasks: {int(self.counts.sum())} sentences of {len(self.domains)} domains, shot {self.shot}, "
            f"{self.queries} queries, {self.length} tokens of a vocabulary of {len(self.vocabulary)}"
        )

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        """Draw ``n`` tasks, each of one domain.

        Returns:
            an episode with a leading axis of n: support x (n, shot, length), y (n, shot, length, vocabulary); queries
            alike.
        """
        lowest, highest = self.shot
        shot = int(torch.randint(lowest, highest + 1, (), generator=generator)) if lowest < highest else lowest
        domain = torch.randint(len(self.domains), (n,), generator=generator)
        keys = torch.rand(n, int(self.counts.max()), generator=generator)
        keys = torch.where(torch.arange(keys.shape[1]) < self.counts[domain].unsqueeze(1), keys, 2.0)
        rows = self.offsets[domain].unsqueeze(1) + keys.topk(shot + self.queries, largest=False).indices  # (n, both)
        return Episode(self._labelled(rows[:, :shot]), self._labelled(rows[:, shot:]))

    def _labelled(self, rows: Tensor) -> Labelled:
        return Labelled(self.x[rows], one_hot(self.next[rows], len(self.vocabulary)))
