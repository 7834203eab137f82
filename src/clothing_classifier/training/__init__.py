"""Making a model: approaches, augmentation, fitting, splits, calibration and export.

Needs the extra ``train``; a new head on another model's features needs ``own`` alone.
"""
