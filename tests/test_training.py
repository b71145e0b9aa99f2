"""The outer loop, and checkpoints from which it continues bit for bit."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quickstudy as q
from quickstudy.backbones.conv4 import ConvBlock
from quickstudy.backbones.norm import Standardize
from quickstudy.episode import Episode, Labelled, task
from quickstudy.training import refresh_statistics

WAY = 3


def vectors(**settings) -> q.ClassTasks:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1)) + torch.arange(60).div(10).floor()[:, None]
    return q.ClassTasks(x, [i // 10 for i in range(60)], **{"way": WAY, "shot": 2, "queries": 3, **settings})


def images() -> q.ClassTasks:
    x = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    return q.ClassTasks(x, [i // 8 for i in range(40)], way=WAY, shot=1, queries=3)


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build()


def protonet() -> q.ProtoNet:
    return seeded(lambda: q.ProtoNet(q.MLP(6, (8,), 4)))


def maml() -> q.MAML:
    return seeded(lambda: q.MAML(q.MLP(6, (8,), 4), inner_lr=0.2, inner_steps=2))


def conv() -> q.ProtoNet:
    return seeded(lambda: q.ProtoNet(q.Conv4(width=4, image_size=16)))


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=1e-2),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}
LR = torch.optim.lr_scheduler
SCHEDULERS = {
    "none": lambda o: None,
    "cosine": lambda o: LR.CosineAnnealingLR(o, T_max=6),
    "step": lambda o: LR.StepLR(o, step_size=2, gamma=0.5),
    "milestones": lambda o: LR.MultiStepLR(o, milestones=[2, 4], gamma=0.1),
    "lambda": lambda o: LR.LambdaLR(o, lambda step: 1 / (1 + step)),
    "one cycle": lambda o: LR.OneCycleLR(o, max_lr=0.1, total_steps=7),
    "warm-up": lambda o: LR.SequentialLR(
        o, [LR.LinearLR(o, 0.1, total_iters=2), LR.MultiStepLR(o, [1, 2])], milestones=[2]
    ),
}


class Run:
    """Everything that one training holds, freshly built."""

    def __init__(self, build=protonet, tasks=None, optimizer="adam", scheduler="none"):
        self.learner = build()
        self.tasks = tasks or vectors()
        self.optimizer = OPTIMIZERS[optimizer](self.learner.parameters())
        self.scheduler = SCHEDULERS[scheduler](self.optimizer)
        self.generator = torch.Generator().manual_seed(5)
        self.losses: list[float] = []

    def train(self, steps: int, start: int = 0, **options) -> "Run":
        for done in q.meta_train(
            self.learner,
            self.tasks,
            self.optimizer,
            **{"steps": steps, "meta_batch": 2, "generator": self.generator, "start": start, **options},
        ):
            self.losses.append(done.loss)
            if self.scheduler is not None:
                self.scheduler.step()
        return self

    def save(self, path: Path, step: int, **options) -> None:
        q.save_checkpoint(
            path, self.learner, self.optimizer, step=step, generator=self.generator, scheduler=self.scheduler, **options
        )

    def load(self, path: Path):
        return q.load_checkpoint(path, self.learner, self.optimizer, generator=self.generator, scheduler=self.scheduler)

    def state(self) -> list[Tensor]:
        """All tensors that training changes."""
        held = self.optimizer.state_dict()["state"]
        moments = [held[i][k] for i in sorted(held) for k in sorted(held[i]) if isinstance(held[i][k], Tensor)]
        rates = torch.tensor([group["lr"] for group in self.optimizer.param_groups], dtype=torch.float64)
        return [*self.learner.state_dict().values(), *moments, rates, self.generator.get_state()]


def same(a: Run, b: Run) -> bool:
    return len(a.state()) == len(b.state()) and all(
        torch.equal(x, y) for x, y in zip(a.state(), b.state(), strict=True)
    )


def assert_resumes_bit_for_bit(path: Path, **arguments) -> None:
    straight = Run(**arguments).train(6)
    half = Run(**arguments).train(3)
    half.save(path, 3)
    resumed = Run(**arguments)
    checkpoint = resumed.load(path)
    assert checkpoint.step == 3
    resumed.train(6, start=checkpoint.step)
    assert half.losses + resumed.losses == straight.losses
    assert same(straight, resumed)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_continues_bit_for_bit_with_every_optimizer(optimizer, tmp_path):
    assert_resumes_bit_for_bit(tmp_path / "c.safetensors", optimizer=optimizer)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_resumed_training_continues_bit_for_bit_with_every_schedule(scheduler, tmp_path):
    assert_resumes_bit_for_bit(tmp_path / "c.safetensors", scheduler=scheduler)


@pytest.mark.parametrize(("build", "tasks"), [(maml, vectors), (conv, images)])
def test_a_resumed_training_continues_bit_for_bit_with_every_kind_of_learner(build, tasks, tmp_path):
    assert_resumes_bit_for_bit(tmp_path / "c.safetensors", build=build, tasks=tasks(), scheduler="cosine")


def test_tied_parameters_resume_bit_for_bit(tmp_path):
    def tied() -> q.ProtoNet:
        first, second = nn.Linear(6, 6), nn.Linear(6, 6)
        second.weight = first.weight
        return q.ProtoNet(nn.Sequential(first, nn.Tanh(), second))

    assert_resumes_bit_for_bit(tmp_path / "c.safetensors", build=lambda: seeded(tied))


def test_an_outer_step_is_one_step_of_the_optimizer_on_the_meta_loss():
    run, twin = Run(maml), maml()
    run.train(1)
    batch = vectors().sample(2, generator=torch.Generator().manual_seed(5))
    optimizer = OPTIMIZERS["adam"](twin.parameters())
    loss = torch.stack(
        [twin.loss(twin.predict(twin.adapt(e.support), e.query.x), e.query.y) for e in (task(batch, 0), task(batch, 1))]
    ).mean()
    loss.backward()
    optimizer.step()
    assert run.losses == [pytest.approx(float(loss.detach()), rel=1e-6)]
    for ours, theirs in zip(run.learner.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_training_learns_the_tasks():
    run = Run().train(80, meta_batch=4)
    assert sum(run.losses[-10:]) < 0.5 * sum(run.losses[:10])


def test_steps_are_numbered_from_one_and_each_is_yielded_after_it_was_taken():
    run = Run()
    start = copy.deepcopy(run.learner.state_dict())
    loop = q.meta_train(run.learner, run.tasks, run.optimizer, steps=3, meta_batch=1, generator=run.generator)
    assert next(loop).step == 1
    assert any(not torch.equal(start[name], now) for name, now in run.learner.state_dict().items())
    assert [done.step for done in loop] == [2, 3]


def test_zero_steps_do_nothing():
    run = Run().train(0)
    assert same(run, Run())


def test_the_callers_loop_may_put_the_learner_into_evaluation_mode():
    run = Run(conv, images())
    modes = []

    def meta_loss(learner, episodes):
        modes.append(learner.training)
        return q.unrolled(learner, episodes)

    for _ in q.meta_train(
        run.learner, run.tasks, run.optimizer, steps=2, meta_batch=1, generator=run.generator, meta_loss=meta_loss
    ):
        run.learner.eval()
    assert modes == [True, True]


def test_a_meta_loss_of_ones_own_is_what_is_descended():
    run = Run(optimizer="plain sgd")
    before = [p.detach().clone() for p in run.learner.parameters()]

    def shrink(learner: q.Learner, episodes: Episode) -> Tensor:
        assert episodes.support.x.shape == (2, 2 * WAY, 6)
        return torch.stack([p.square().sum() for p in learner.parameters()]).sum() / 2

    run.train(1, meta_loss=shrink)
    for p, p0 in zip(run.learner.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), 0.99 * p0)  # θ − lr·θ


def test_population_statistics_move_and_stay_finite():
    run = Run(conv, images())
    layers = [m for m in run.learner.modules() if hasattr(m, "updates")]
    run.train(22)
    for layer in layers:
        assert int(layer.updates) == 3  # steps 1, 10 and 20
        assert bool(torch.isfinite(layer.mean).all())
        assert bool((layer.var > 0).all())
        assert bool(torch.isfinite(layer.var).all())
        assert float((layer.mean.abs() + (layer.var - 1).abs()).max()) > 0


def test_the_first_refresh_takes_mean_and_variance_of_one_tasks_queries():
    learner, episode = conv().train(), task(images().sample(1, generator=torch.Generator().manual_seed(2)), 0)
    seen = {}
    assert isinstance(learner.backbone, q.Conv4)
    block = learner.backbone.blocks[0]
    assert isinstance(block, ConvBlock)
    hook = block.normalise.register_forward_pre_hook(lambda layer, inputs: seen.setdefault("x", inputs[0]))
    learner.predict(learner.adapt(episode.support), episode.query.x)
    hook.remove()
    seen.clear()
    hook = block.normalise.register_forward_pre_hook(lambda layer, inputs: seen.setdefault("x", inputs[0]))
    learner.backbone(episode.query.x)
    hook.remove()
    refresh_statistics(learner, episode)
    rows = seen["x"].detach().transpose(0, 1).flatten(1)
    torch.testing.assert_close(block.normalise.mean, rows.mean(1))
    torch.testing.assert_close(block.normalise.var, rows.var(1))


class Scripted:
    """Hands out the given episodes, one per call."""

    def __init__(self, *episodes: Episode):
        self.episodes = list(episodes)

    def sample(self, n: int, *, generator: torch.Generator) -> Episode:
        return self.episodes.pop(0)


def test_a_loss_that_is_not_finite_names_the_step_and_leaves_the_parameters():
    run = Run()
    good = vectors().sample(1, generator=run.generator)
    huge = Episode(good.support, Labelled(good.query.x * 1e30, good.query.y))
    run.tasks = Scripted(good, good, huge)
    run.train(2, meta_batch=1)
    before = copy.deepcopy(run.learner.state_dict())
    with pytest.raises(FloatingPointError, match="outer step 3") as caught:
        run.train(5, start=2, meta_batch=1)
    assert "finite" in str(caught.value)
    assert "lower the learning rate" in str(caught.value)
    assert len(run.losses) == 2
    assert all(torch.equal(before[name], now) for name, now in run.learner.state_dict().items())


def test_a_gradient_that_is_not_finite_names_the_step_and_leaves_the_parameters():
    run = Run().train(2)
    before = copy.deepcopy(run.learner.state_dict())

    def cusp(learner: q.Learner, episodes: Episode) -> Tensor:
        return torch.stack([(0 * p).abs().sqrt().sum() for p in learner.parameters()]).sum()  # 0, with a slope of ∞·0

    with pytest.raises(FloatingPointError, match=r"meta-gradient is NaN or infinite at outer step 3 \(meta-loss 0\)"):
        run.train(3, start=2, meta_loss=cusp)
    assert all(torch.equal(before[name], now) for name, now in run.learner.state_dict().items())


def test_a_learner_without_anything_to_train_is_refused():
    run = Run()
    run.learner = q.NearestNeighbour()
    with pytest.raises(ValueError, match="meta-loss of NearestNeighbour depends on no parameter that can be trained"):
        run.train(1)


def change(part: str, field: str, f) -> Episode:
    episodes = vectors().sample(1, generator=torch.Generator().manual_seed(0))
    labelled = getattr(episodes, part)
    return episodes._replace(**{part: labelled._replace(**{field: f(getattr(labelled, field))})})


@pytest.mark.parametrize(
    ("episodes", "words"),
    [
        (change("support", "y", lambda y: y * 2), ["support.y is not one-hot", "quickstudy.one_hot"]),
        (change("query", "y", lambda y: y + 1), ["query.y is not one-hot", "one_hot"]),
        (change("query", "y", lambda y: y.argmax(-1)), ["query.y is not one-hot", "one_hot(labels, way)"]),
        (change("support", "x", lambda x: x[:, 1:]), ["support: x has shape (1, 5, 6) and y (1, 6, 3)"]),
        (change("support", "x", lambda x: x / 0), ["support.x holds NaN or infinite", "impute"]),
        (change("query", "x", lambda x: x * torch.nan), ["query.x holds NaN or infinite"]),
        (change("query", "y", lambda y: y[..., :2]), ["support has 3 classes and query 2"]),
    ],
)
def test_episodes_that_no_learner_could_learn_from_are_refused(episodes, words):
    run = Run(tasks=Scripted(episodes))
    with pytest.raises(ValueError, match=r".") as caught:
        run.train(1, meta_batch=1)
    for word in words:
        assert word in str(caught.value)
    assert same(run, Run())


@pytest.mark.parametrize("options", [{"meta_batch": 0}, {"steps": -1}])
def test_a_meta_batch_and_steps_are_required(options):
    with pytest.raises(ValueError, match="required are at least 1 and 0"):
        Run().train(**{"steps": 1, **options})


def test_notes_come_back(tmp_path):
    Run().train(1).save(tmp_path / "c.safetensors", 1, notes={"best": 0.5, "losses": [1.0, 2.0], "none": None})
    checkpoint = Run().load(tmp_path / "c.safetensors")
    assert checkpoint.notes == {"best": 0.5, "losses": [1.0, 2.0], "none": None}


def test_what_a_checkpoint_cannot_hold_is_refused_and_the_previous_one_stays(tmp_path):
    path = tmp_path / "c.safetensors"
    run = Run().train(1)
    run.save(path, 1)
    with pytest.raises(ValueError, match=r"notes .*not JSON serializable.*plain numbers"):
        run.save(path, 2, notes={"best": torch.tensor(1.0)})
    run.optimizer = torch.optim.Adam(run.learner.parameters(), lr=torch.tensor(1e-2))
    with pytest.raises(ValueError, match=r"state of Adam hold what a checkpoint cannot.*lr=0.001 and not a tensor"):
        run.save(path, 3)
    assert Run().load(path).step == 1


@pytest.fixture
def written(tmp_path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    Run(scheduler="cosine").train(2).save(path, 2)
    return path


def assert_refused(run: Run, path: Path, *words: str) -> None:
    """The error names the file, and nothing that was handed in has changed."""
    before = [tensor.clone() for tensor in run.state()]
    with pytest.raises(ValueError, match=r".") as caught:
        run.load(path)
    for word in (path.name, *words):
        assert word in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, run.state(), strict=True))


def test_a_checkpoint_of_another_learner_is_refused_and_named(written):
    other = Run(lambda: seeded(lambda: q.ProtoNet(nn.Linear(6, 4))), scheduler="cosine")
    assert_refused(other, written, "another learner", "backbone.", "missing", "config.json")


def test_a_checkpoint_of_another_shape_is_refused_and_named(written):
    other = Run(lambda: seeded(lambda: q.ProtoNet(q.MLP(6, (9,), 4))), scheduler="cosine")
    assert_refused(other, written, "backbone.layers.0.bias is (8,) float32 in the file, (9,) float32 in the learner")


def test_a_checkpoint_of_another_precision_is_refused_and_named(written):
    assert_refused(Run(lambda: protonet().double(), scheduler="cosine"), written, "float32 in the file", "float64")


def test_a_checkpoint_of_another_optimizer_is_refused_and_named(written):
    assert_refused(Run(optimizer="sgd", scheduler="cosine"), written, "Adam", "SGD", "same one")


def test_a_checkpoint_of_other_parameter_groups_is_refused(written):
    run = Run(scheduler="cosine")
    run.optimizer = torch.optim.Adam([{"params": [p]} for p in run.learner.parameters()])
    assert_refused(run, written, "other parameters")


def test_a_checkpoint_with_another_schedule_is_refused(written):
    assert_refused(Run(), written, "scheduler")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b: b[: len(b) // 2], ["cut"]),
        (lambda b: b[:-1], ["cut"]),
        (lambda b: b"", ["cut"]),
        (lambda b: b[:4], ["cut"]),
        (lambda b: b"\x00" * len(b), ["cut or is no safetensors file"]),
        (lambda b: b"not a checkpoint at all, but some text", ["cut or is no safetensors file"]),
        (lambda b: b"\xff" * 8 + b[8:], ["cut or is no safetensors file"]),
    ],
)
def test_a_spoilt_checkpoint_is_refused_and_named(written, spoil, words):
    written.write_bytes(spoil(written.read_bytes()))
    assert_refused(Run(scheduler="cosine"), written, *words)


def test_a_missing_checkpoint_and_a_foreign_file_are_refused_and_named(tmp_path):
    assert_refused(Run(), tmp_path / "nowhere.safetensors", "cannot be read")
    q.save(protonet(), tmp_path / "learner.safetensors")
    assert_refused(Run(), tmp_path / "learner.safetensors", "required is a checkpoint of training")


def test_a_checkpoint_is_plain_tensors_and_json(written):
    from safetensors import safe_open

    with safe_open(written, "pt") as file:
        header = json.loads(file.metadata()["checkpoint"])
        assert header["step"] == 2
        assert header["optimizer"]["class"] == "Adam"
        assert "generator" in file.keys()  # noqa: SIM118 - no mapping


def dropout_run(steps, *, frozen=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    learner = q.MAML(network, head=None, inner_lr=0.01)
    if frozen:
        network.eval()
    optimizer = torch.optim.Adam(learner.parameters())
    generator = torch.Generator().manual_seed(0)
    done = [
        s.loss for s in q.meta_train(learner, q.Sinusoid(), optimizer, steps=steps, meta_batch=2, generator=generator)
    ]
    return learner, done


def test_dropout_draws_the_same_masks_in_the_same_run():
    before = torch.get_rng_state()
    (_, first), (_, second) = dropout_run(4), dropout_run(4)
    assert first == second
    assert torch.equal(before, torch.get_rng_state())
    assert dropout_run(4, frozen=True)[1] != first


def test_statistics_behind_dropout_do_not_depend_on_the_global_generator():
    def statistics():
        backbone = torch.nn.Sequential(torch.nn.Dropout(0.5), Standardize(6))
        learner, tasks = q.ProtoNet(backbone), q.ClassTasks(torch.ones(40, 6), [i // 8 for i in range(40)], queries=3)
        learner.scale = torch.nn.Parameter(torch.ones(()))
        optimizer = torch.optim.Adam(learner.parameters())
        generator = torch.Generator().manual_seed(0)
        run = q.meta_train(
            learner, tasks, optimizer, steps=1, meta_batch=1, generator=generator,
            meta_loss=lambda learner, episodes: learner.scale * q.unrolled(learner, episodes),
        )  # fmt: skip
        next(run)
        return backbone[1].mean.clone()

    first = statistics()
    torch.rand(3)
    assert torch.equal(first, statistics())


def test_the_learner_is_in_evaluation_mode_between_steps_and_afterwards():
    learner = q.MAML(q.MLP(1), head=None)
    optimizer = torch.optim.Adam(learner.parameters())
    generator = torch.Generator().manual_seed(0)
    for _ in q.meta_train(learner, q.Sinusoid(), optimizer, steps=2, meta_batch=1, generator=generator):
        assert not any(module.training for module in learner.modules())
    assert not learner.training


def test_a_part_that_was_put_into_evaluation_mode_stays_there():
    batch_norm = torch.nn.BatchNorm1d(6)
    backbone = torch.nn.Sequential(torch.nn.Linear(6, 6), batch_norm, torch.nn.Linear(6, 4))
    batch_norm.eval()
    tasks = q.ClassTasks(torch.randn(40, 6), [i // 8 for i in range(40)], way=3, queries=3)
    learner = q.ProtoNet(backbone)
    optimizer = torch.optim.Adam(learner.parameters())
    for _ in q.meta_train(learner, tasks, optimizer, steps=3, meta_batch=2, generator=torch.Generator().manual_seed(0)):
        pass
    assert torch.equal(batch_norm.running_mean, torch.zeros(6))


def test_optimizers_that_need_a_closure_are_refused():
    learner = q.MAML(q.MLP(1), head=None)
    run = q.meta_train(
        learner,
        q.Sinusoid(),
        torch.optim.LBFGS(learner.parameters()),
        steps=1,
        meta_batch=1,
        generator=torch.Generator(),
    )
    with pytest.raises(ValueError, match=r"LBFGS.*without a closure"):
        next(run)


def test_parameters_that_an_outer_step_blows_up_are_named_before_anyone_can_save_them():
    learner = q.MAML(q.MLP(1), head=None)
    optimizer = torch.optim.SGD(learner.parameters(), lr=3e38)
    run = q.meta_train(
        learner, q.Sinusoid(), optimizer, steps=3, meta_batch=4, generator=torch.Generator().manual_seed(0),
        meta_loss=lambda learner, episodes: 1e4 * q.unrolled(learner, episodes),
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match="a parameter is NaN or infinite after outer step 1"):
        next(run)


def test_settled_statistics_are_those_of_fresh_tasks():
    tasks = q.ClassTasks(3 + 2 * torch.randn(90, 1, 16, 16), [i // 9 for i in range(90)], way=5, queries=5)
    learner = q.ProtoNet(q.Conv4(width=8, image_size=16))
    q.settle_statistics(learner, tasks, generator=torch.Generator().manual_seed(0))
    first = learner.backbone.blocks[0]
    with torch.no_grad():
        inputs = torch.nn.functional.conv2d(tasks.x, first.weight, padding=1)
    torch.testing.assert_close(first.normalise.mean, inputs.mean((0, 2, 3)), rtol=0.1, atol=0.1)
    torch.testing.assert_close(first.normalise.var, inputs.var((0, 2, 3)), rtol=0.2, atol=0.1)
    assert not learner.training
