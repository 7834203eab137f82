"""Making a model: approaches, augmentation, fitting, splits, calibration and export. Needs the extra ``train``."""
