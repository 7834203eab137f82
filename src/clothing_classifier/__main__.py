"""``python -m clothing_classifier`` is the command ``clothing``, and so is the script of that name."""

import sys


def main() -> None:
    """Run the command, and end with code 130 where Ctrl-C comes before it has begun."""
    try:
        from clothing_classifier.cli import main as command

        command(prog_name="clothing")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
