"""``python -m clothing_classifier`` is the command ``clothing``."""

from clothing_classifier.cli import main

main(prog_name="clothing")
