"""Settings of two runs that take a second: numbers by gradient steps, and classes by their means."""

from quickstudy.runs import Settings

SINUSOID = Settings(
    learner="maml",
    tasks="sinusoid",
    backbone="mlp",
    width=8,
    shot=5,
    queries=5,
    inner_lr=0.01,
    steps=12,
    meta_batch=2,
    validate_every=4,
    validation_episodes=5,
)
PROTONET = Settings(
    learner="protonet", width=4, way=3, queries=3, steps=6, validate_every=3, validation_episodes=4, augment=True
)
