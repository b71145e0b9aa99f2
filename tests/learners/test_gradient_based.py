"""What users hand to gradient-based learners by mistake: the right behaviour, or an error that says what to do."""

import pytest
import torch
from torch import nn

import quickstudy as q
from quickstudy.inner import SGD, TorchOptim


def tasks(n: int = 3) -> q.Episode:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    return q.ClassTasks(x, [i // 10 for i in range(60)], way=3, shot=2, queries=2).sample(
        n, generator=torch.Generator().manual_seed(0)
    )


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def trained(learner: q.Learner, steps: int = 3) -> q.Learner:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    distribution = q.ClassTasks(x, [i // 10 for i in range(60)], way=3, shot=2, queries=2)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in q.meta_train(learner, distribution, optimizer, steps=steps, meta_batch=2, generator=generator):
        pass
    return learner


class Unreached(nn.Module):
    """A layer that its forward pass does not use, and a counter."""

    def __init__(self):
        super().__init__()
        self.body, self.unused = network(), nn.Linear(3, 3)
        self.count = nn.Parameter(torch.arange(3), requires_grad=False)

    def forward(self, x):
        return self.body(x) * float(self.count.numel())


def test_parameters_that_the_loss_does_not_reach_and_integer_ones_stay_as_they_are():
    learner = q.MAML(Unreached(), inner_lr=0.01, inner_steps=2)
    before = {name: p.clone() for name, p in learner.named_parameters()}
    phi = learner.adapt(q.task(tasks(1), 0).support)
    assert torch.equal(phi["network.unused.weight"], before["network.unused.weight"])
    assert "network.count" not in phi
    trained(learner)
    for name, p in learner.named_parameters():
        assert torch.equal(p, before[name]) is ("unused" in name or "count" in name)


def test_frozen_parameters_stay_as_they_are_inside_and_outside():
    body = network()
    body[0].requires_grad_(False)
    learner = q.MAML(body, inner_lr=0.1, inner_steps=2)
    before = body[0].weight.clone()  # pyright: ignore
    assert "network.0.weight" not in learner.adapt(q.task(tasks(1), 0).support)
    trained(learner)
    assert torch.equal(before, body[0].weight)  # pyright: ignore


def test_operations_in_place_inside_the_network_are_fine():
    layers = list(network())
    in_place = nn.Sequential(layers[0], nn.ReLU(inplace=True), layers[2])
    plain = nn.Sequential(layers[0], nn.ReLU(), layers[2])
    losses = [q.unrolled(q.MAML(n, inner_lr=0.1, inner_steps=2), tasks(), strategy="loop") for n in (in_place, plain)]
    torch.testing.assert_close(losses[0], losses[1])


def test_a_network_that_overwrites_the_examples_is_an_error():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def forward(self, x):
            return self.body(x.sub_(1))

    with pytest.raises(RuntimeError, match="in-place"):
        q.MAML(Overwrites(), head="shared", inner_steps=2).adapt(q.task(tasks(1), 0).support)


@pytest.mark.parametrize("training", [True, False])
def test_running_statistics_are_refused_with_a_way_out(training):
    body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)).train(training)
    with pytest.raises(
        ValueError, match=r"'1' of the network keeps running statistics.*replace_all_batch_norm_modules_"
    ):
        q.MAML(body)


def test_zero_inner_steps_predict_with_the_start():
    learner = q.MAML(network(), head="prototypes", inner_steps=0)
    episode = q.task(tasks(1), 0)
    ours = learner.predict(learner.adapt(episode.support), episode.query.x)
    proto = q.ProtoNet(learner.network)
    theirs = proto.predict(proto.adapt(episode.support), episode.query.x)
    torch.testing.assert_close(ours.log_softmax(-1), theirs.log_softmax(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_an_inner_loss_that_is_not_finite_is_named_by_task_and_step(strategy):
    batch = tasks()
    batch.support.x[1] *= 1e30
    learner = q.MAML(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4)), inner_lr=0.1, inner_steps=4)
    message = (
        r"task 2 of the meta-batch: the inner (loss|gradient) is (nan|inf) at inner step 2; required is a finite number"
    )
    with pytest.raises(FloatingPointError, match=message):
        q.unrolled(learner, batch, strategy=strategy)


def test_training_names_the_outer_step_as_well_and_changes_nothing():
    learner = q.MAML(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4)), inner_lr=1e30, inner_steps=4)
    before = [p.clone() for p in learner.parameters()]
    with pytest.raises(
        FloatingPointError, match=r"outer step 1, task \d of the meta-batch: the inner (loss|gradient) is"
    ):
        trained(learner)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))


def test_an_optimizer_that_needs_a_closure_is_refused():
    with pytest.raises(ValueError, match="LBFGS"):
        TorchOptim("LBFGS", lr=0.1)


def test_sparse_gradients_are_refused():
    with pytest.raises(ValueError, match=r"'0' of the network gives sparse gradients.*sparse=False"):
        q.MAML(nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Flatten()))


def test_a_learned_rate_may_become_negative_and_ascends():
    learner = q.MetaSGD(network(), head="prototypes", inner_lr=0.1, inner_steps=2)
    with torch.no_grad():
        for rate in learner.update_rule.parameters():
            rate.neg_()
    episode = q.task(tasks(1), 0)
    up = learner.adapt(episode.support)
    down = q.MAML(learner.network, head="prototypes", inner_lr=0.1, inner_steps=2).adapt(episode.support)
    losses = [learner.loss(learner.predict(phi, episode.support.x), episode.support.y) for phi in (up, down)]
    assert losses[0] > losses[1]
    assert torch.isfinite(q.unrolled(learner, tasks(), strategy="loop"))


@pytest.mark.parametrize("adapts", ["linear.*", ["head.*", "nothing"]])
def test_a_pattern_that_names_nothing_is_refused(adapts):
    with pytest.raises(ValueError, match=r"names no parameter that can move; there are \['network.0.weight'"):
        q.MAML(network(), adapts=adapts)


def test_a_rule_of_ones_own_needs_no_base_class():
    class Signs:
        def init(self, params):
            return None

        def step(self, params, grads, state):
            return {name: p - 0.01 * grads[name].sign() for name, p in params.items()}, None

    learner = q.MAML(network(), rule=Signs(), inner_steps=2, mode="recompute")
    theirs = q.MAML(learner.network, rule=Signs(), inner_steps=2)
    torch.testing.assert_close(q.unrolled(learner, tasks()), q.unrolled(theirs, tasks()))
    assert SGD(0.1).momentum == 0


def test_a_network_that_was_frozen_afterwards_is_an_error_and_no_other_prediction():
    learner = q.MAML(network(), inner_steps=2)
    learner.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no parameter of the network requires a gradient any more.*torch.no_grad"):
        learner.adapt(q.task(tasks(1), 0).support)
