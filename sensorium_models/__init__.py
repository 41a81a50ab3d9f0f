"""Networks that predict activity in visual cortex: recordings, training, scores, report."""

__version__ = "0.1.0"
