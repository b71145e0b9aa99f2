"""ProtoNet against equations (1) and (2) in slow loops."""

import torch

import quickstudy as q
from tests.contract import CASES, one


def test_protonet_is_its_equations():
    torch.manual_seed(0)
    episode = one(CASES["protonet"])
    learner = CASES["protonet"].build()
    (sx, sy), (qx, _) = episode
    prediction = learner.predict(learner.adapt(episode.support), qx)
    with torch.no_grad():
        for m, x in enumerate(qx):
            scores = []
            for k in range(sy.shape[1]):
                members = [learner.backbone(s[None])[0] for s, row in zip(sx, sy, strict=True) if row[k] == 1]
                centre = sum(members) / len(members)
                scores.append(-((learner.backbone(x[None])[0] - centre) ** 2).sum())
            torch.testing.assert_close(prediction[m], torch.stack(scores))


def test_a_class_without_support_gets_no_probability():
    learner = q.ProtoNet(torch.nn.Identity())
    support = q.Labelled(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    probability = learner.predict(learner.adapt(support), torch.tensor([[0.1]])).softmax(-1)
    assert float(probability[0, 2]) == 0
    assert int(probability.argmax()) == 0
