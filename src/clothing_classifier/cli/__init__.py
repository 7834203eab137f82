"""The command ``clothing``. Each subcommand is a module of its own, imported when it is called."""

from __future__ import annotations

import io
import math
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from clothing_classifier import __version__

_COMMANDS = {
    "predict": "Classify photos.",
    "info": "Show what a model is and how far to trust it.",
    "data": "Fetch a dataset, and check what is in it.",
    "train": "Train a classifier and measure it.",
    "crossval": "Cross-validate an approach.",
    "join": "Join finished runs: the mean of their answers.",
    "compare": "Compare cross-validated approaches: a table and a report.",
    "serve": "Classify photos over HTTP, with a web page.",
}


class _Trouble(click.ClickException):
    exit_code = 2  # 1 is for a run that did its work, but not for all photos


class _Commands(click.Group):
    """A group whose ``--help`` imports none of its commands, and whose known errors are one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal's encoding lacks must not end a run
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except click.UsageError:
            raise
        except click.ClickException as error:
            raise _Trouble(error.format_message()) from error
        except KeyboardInterrupt:
            sys.exit(130)
        except OSError as error:
            # If standard output is what failed, what is still buffered for it must not fail again at the exit.
            with suppress(io.UnsupportedOperation):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # nobody reads on, as with `| head`
                sys.exit(141)
            raise _Trouble(printable(str(error))) from error
        except Exception as error:
            # The exceptions that this package defines are written for people; any other is a fault of its own.
            if type(error).__module__.partition(".")[0] != __name__.partition(".")[0]:
                raise
            raise _Trouble(printable(str(error))) from error


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="clothing %(version)s")
def main() -> None:
    """Photos of garments in, categories out."""


def printable(text: str) -> str:
    """Return text that a terminal shows on one line and that cannot steer it: anything else is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Number(click.FloatRange):
    """A number in a range; for click's own, NaN is in any and infinity is in an open one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as click does, and refuse what is no number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


PROVIDERS = ("auto", "cpu", "cuda", "directml", "coreml", "openvino")
"""What `execution` can choose from; that room is imported only when a model is needed."""

provider_option = click.option(
    "--provider",
    default="auto",
    show_default=True,
    type=click.Choice(PROVIDERS),
    help="Which of onnxruntime's execution providers computes. auto: the best that is here and says what the CPU says.",
)
