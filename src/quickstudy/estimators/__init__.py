"""The scikit-learn face: learn a task from a handful of examples with ``fit``, answer with ``predict``."""

from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.model_file import load_model
from quickstudy.estimators.regressor import FewShotRegressor

__all__ = ["FewShotClassifier", "FewShotRegressor", "load_model"]
