"""Anomaly scores: the same numpy code prepares windows for training, serves on the device and explains an alarm."""

from hedgerow.shared.scoring.baseline import BaselineFitted, StatisticalBaseline
from hedgerow.shared.scoring.scorer import RULE_NAME, RULE_VERSION, Scorer
from hedgerow.shared.scoring.values import ChartOptions, Fitted, Score

__all__ = [
    "RULE_NAME",
    "RULE_VERSION",
    "BaselineFitted",
    "ChartOptions",
    "Fitted",
    "Score",
    "Scorer",
    "StatisticalBaseline",
]
