"""Measuring models: metrics that take ``(truth, predictions)`` and say how sure they are of themselves."""
