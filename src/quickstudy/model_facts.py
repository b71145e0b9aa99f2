"""What the commands say of a model: its classes, and how far its answers can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickstudy.estimators import FewShotClassifier, FewShotRegressor
    from quickstudy.estimators.own_examples import OwnExamples

_LEAST_RIGHT = 0.6  # of a person's own examples; below, a person is warned
_MOST_ERROR = 0.15


def facts_of(model: "FewShotClassifier | FewShotRegressor", path: Path) -> dict[str, Any]:
    """The facts as JSON holds them; "classes", "trust" and "own_examples" of classifiers alone."""
    from quickstudy.estimators import FewShotClassifier
    from quickstudy.estimators.own_examples import on_own_examples

    facts: dict[str, Any] = {"model": str(path), "learner": model.card_.get("name", type(model.learner_).__name__)}
    facts["examples"] = len(model.support_.x)
    if isinstance(model, FewShotClassifier):
        counts = zip(model.classes_.tolist(), model.support_.y.sum(0).tolist(), strict=True)
        facts["classes"] = [{"name": name, "examples": int(count)} for name, count in counts]
        facts["trust"] = _trust(model)
        own = on_own_examples(model)
        facts["own_examples"] = None if own is None else _own(own)
    return facts


def in_words(facts: dict[str, Any]) -> list[str]:
    """Lines on how far a classifier's answers can be trusted."""
    trust, own = facts["trust"], facts["own_examples"]
    lines = []
    if trust is None:
        lines += [
            "not calibrated: probabilities are the learner's own, and unknown classes cannot be told; add examples"
        ]
    else:
        errors = (f"{100 * trust[key]:.1f} %" for key in ("ece_before", "ece_after"))
        lines += [
            f"calibrated on {trust['source']}: expected calibration error there {' before and '.join(errors)} after"
        ]
        lines[-1] += (
            "" if trust["unknown_auroc"] is None else f", AUROC of unknown classes {trust['unknown_auroc']:.3f}"
        )
        lines += _unknown(trust)
    if own is not None:
        lines += [
            f"on your own examples, each left out in turn: {100 * own['accuracy']:.0f} % right, expected calibration "
            f"error {100 * own['expected_calibration_error']:.1f} %"
        ]
    return lines


def warnings_of(facts: dict[str, Any]) -> list[str]:
    """What a person should know of a model before relying on it."""
    own, found = facts.get("own_examples"), []
    if own is not None and own["accuracy"] < _LEAST_RIGHT:
        found += [
            f"{100 * own['accuracy']:.0f} % of your own examples, each left out in turn, were answered rightly: look "
            "whether their classes can be told apart by what the learner reads, give more examples, or choose another "
            "learner"
        ]
    if own is not None and own["expected_calibration_error"] > _MOST_ERROR:
        found += [
            f"on your own examples probabilities are off by {100 * own['expected_calibration_error']:.0f} points on "
            "average: take the ranking and not the numbers, or give more examples"
        ]
    return found


def _trust(model: "FewShotClassifier") -> dict[str, Any] | None:
    from quickstudy.estimators.own_examples import least_false_alarms

    if model.trust_ is None:
        return None
    trust, found = model._trusted.calibrated("describe")
    own = not model._trusted.came_with_learner
    return {
        "source": trust.source,
        "measured_on": "own examples" if own else "other tasks",
        "examples": found.examples,
        "temperature": found.temperature,
        "ece_before": found.ece_before,
        "ece_after": found.ece_after,
        "unknown_score": trust.score,
        "unknown_auroc": found.auroc[trust.score] if model._trusted.knows_unknown(found) else None,
        "false_alarms": float(model.false_alarms),
        "least_false_alarms": least_false_alarms(found),
    }


def _unknown(trust: dict[str, Any]) -> list[str]:
    from quickstudy.trust import examples_needed

    if trust["unknown_auroc"] is None:
        return ["with two classes nothing is learnt of unknown ones: a third class with two examples changes that"]
    asked, least = trust["false_alarms"], trust["least_false_alarms"]
    if asked >= least:
        return []
    needed = f"{examples_needed(1 - asked)} examples" if asked >= 0.005 else "more than is ever stored"
    return [
        f"unknown classes are told from {100 * least:g} % of false alarms on: predict --unknown --false-alarms "
        f"{least:g}; {100 * asked:g} % takes {needed}"
    ]


def _own(own: "OwnExamples") -> dict[str, Any]:
    return {
        "examples": own.examples,
        "accuracy": own.accuracy,
        "expected_calibration_error": own.ece,
    }
