"""Runs, from a folder of photos to measured models; a run's folder holds all that made it."""

from clothing_classifier.runs.crossval import cross_validate
from clothing_classifier.runs.folder import Reporter, RunError
from clothing_classifier.runs.own import OwnSettings, train_own
from clothing_classifier.runs.photos import Settings, SplitChoice
from clothing_classifier.runs.single import train

__all__ = ["OwnSettings", "Reporter", "RunError", "Settings", "SplitChoice", "cross_validate", "train", "train_own"]
