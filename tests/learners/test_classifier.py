"""Plain classification: the learner that does not adapt."""

import pytest
import torch

import quickstudy as q


def test_a_classifier_learns_all_classes_at_once(generator):
    x = torch.eye(4).repeat_interleave(10, 0) + 0.1 * torch.randn(40, 4, generator=generator)
    tasks = q.ClassTasks(x, [i // 10 for i in range(40)], way=2, queries=5)
    torch.manual_seed(0)
    learner = q.Classifier(q.MLP(4, (8,), 8), classes=4)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.05)
    steps = list(
        q.meta_train(learner, q.AllClasses(tasks, batch=16), optimizer, steps=60, meta_batch=1, generator=generator)
    )
    assert steps[0].loss == pytest.approx(1.386, abs=0.4)
    assert steps[-1].loss < 0.1
    empty = q.Labelled(x[:0], torch.zeros(0, 4))
    assert learner.predict(learner.adapt(empty), x).argmax(-1).tolist() == [i // 10 for i in range(40)]
