"""The command ``clothing``. Each subcommand is a module of its own, imported when it is called."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

import click

from clothing_classifier import __version__

if TYPE_CHECKING:
    from clothing_classifier.images import Limits

_COMMANDS = {
    "predict": "Classify photos.",
    "evaluate": "Measure a model on your own labelled photos.",
    "info": "Show what a model is and how far to trust it.",
    "data": "Fetch a dataset, and check what is in it.",
    "train": "Train a classifier and measure it.",
    "crossval": "Cross-validate an approach.",
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

    def main(self, *args: Any, **extra: Any) -> Any:
        _replace_missing_streams()
        try:
            return super().main(*args, **extra)
        except OSError as error:  # help cannot be shown, or an error cannot be told
            if not extra.get("standalone_mode", True):
                raise
            with suppress(OSError):  # standard error may be what failed
                click.echo(f"Error: {_tell(error)}", err=True)
            _silence(sys.stdout, sys.stderr)
            sys.exit(_Trouble.exit_code)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except KeyboardInterrupt:  # click would end with 1
            sys.exit(130)

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal's encoding lacks must not end a run
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # where it fails at the exit, Python's own message and code would tell
            return result
        except (click.UsageError, click.exceptions.Exit, click.Abort):
            raise
        except click.ClickException as error:
            raise _Trouble(error.format_message()) from error
        except KeyboardInterrupt:
            sys.exit(130)
        except OSError as error:
            _silence(sys.stdout)
            if isinstance(error, BrokenPipeError):  # nobody reads on, as with `| head`
                sys.exit(141)
            raise _Trouble(_tell(error)) from error
        except Exception as error:
            if isinstance(error.__cause__, KeyboardInterrupt):  # onnxruntime's import makes an error of it
                sys.exit(130)
            # The exceptions that this package defines are written for people, and a package that it needs may be
            # missing or broken; anything else is a fault of its own.
            if _is_ours(type(error).__module__):
                raise _Trouble(printable(str(error))) from error
            if isinstance(error, ImportError) and not _is_ours(error.name or ""):
                raise _Trouble(printable(_advise(error))) from error
            sys.excepthook(type(error), error, error.__traceback__)
            sys.exit(_Trouble.exit_code)


def _tell(error: OSError) -> str:
    """Return which file it is about, if it says so, and the reason, in words for people."""
    if error.strerror is None:
        return printable(str(error))
    reason = error.strerror[:1].lower() + error.strerror[1:]
    if error.filename is None:
        return printable(reason)
    name = error.filename if isinstance(error.filename, int) else os.fsdecode(error.filename)
    return printable(f"{name}: {reason}")


def _silence(*streams: TextIO) -> None:
    """Send what is still buffered for streams nowhere: where one has failed, it would fail again at the exit."""
    for stream in streams:
        with suppress(io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _ClosedOutput(io.TextIOBase):
    """In the place of a standard output that was closed before the start: what is lost there is not lost silently."""

    def write(self, text: str, /) -> int:
        raise OSError("standard output is closed; what is to be written there would be lost")


def _replace_missing_streams() -> None:
    """Give the null device to standard streams that are missing, as those of `>&-` and of services on Windows are.

    Their numbers are taken too, for otherwise the next file that is opened gets one of them, and with it whatever a
    library writes to standard error.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            mode = "r" if name == "stdin" else "w"
            stream = open(number, mode, errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, _ClosedOutput() if name == "stdout" else stream)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _advise(error: ImportError) -> str:
    """Return what cannot be imported, why, and what to do about it, on one line."""
    module = (error.name or "").partition(".")[0]
    missing = module or "a package that is needed"
    reason = " ".join(str(error).split())
    again = {"": "numpy onnxruntime pillow pi-heif", "PIL": "pillow", "pi_heif": "pi-heif"}.get(module, module)
    advice = f"install it again: pip install --force-reinstall --upgrade {again}"
    if "DLL" in reason:
        runtime = "Microsoft's Visual C++ Redistributable (https://aka.ms/vs/17/release/vc_redist.x64.exe)"
        advice = f"install {runtime}, or {advice}"
    return f"{missing} cannot be imported ({reason}); {advice}"


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="clothing %(version)s")
def main() -> None:
    """Photos of garments in, categories out."""


def printable(text: str) -> str:
    """Return text that a terminal shows on one line and that cannot steer it: anything else is written as an escape."""
    from clothing_classifier.taxonomy import escape_unprintable  # a help page needs nothing of it

    return escape_unprintable(text)


def measure_width(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a Chinese character or an emoji, none for a mark."""
    from unicodedata import category, east_asian_width  # a help page needs nothing of it

    return sum(
        0 if category(character) in ("Mn", "Me", "Cf") else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


def pad(text: str, width: int) -> str:
    """Return a text with spaces after it, so that it takes as many columns of a terminal as ``width`` says."""
    return text + " " * (width - measure_width(text))


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, which gets an s unless its plural is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


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

model_option = click.option(
    "--model",
    type=click.Path(readable=False),
    help="A model file, such as the model.onnx of a `clothing train` run. By default the model that ships.",
)

threshold_option = click.option(
    "--threshold",
    type=Number(0, 1),
    help='Below this probability the answer is "not sure".  [default: the model\'s own]',
)

provider_option = click.option(
    "--provider",
    default="auto",
    show_default=True,
    type=click.Choice(PROVIDERS),
    help="Which of onnxruntime's execution providers computes. auto: the best that is here and says what the CPU says.",
)


def computing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of all commands that classify files: how large these may be, and what computes."""
    for option in reversed(
        (
            click.option(
                "--max-bytes",
                type=click.IntRange(1),
                help="Largest size of a photo's file, in bytes.  [default: 67108864]",
            ),
            click.option(
                "--max-megapixels",
                type=Number(0, min_open=True),
                help="Largest size of a photo, in millions of pixels.  [default: 120]",
            ),
            click.option(
                "--threads", type=click.IntRange(1), help="How many threads decode and compute.  [default: the cores]"
            ),
            provider_option,
        )
    ):
        command = option(command)
    return command


def make_limits(max_bytes: int | None, max_megapixels: float | None) -> Limits:
    """Return the limits that the options of `computing_options` ask for; the usual ones where they do not."""
    from clothing_classifier.images import DEFAULT_LIMITS, Limits

    return Limits(
        max_bytes=max_bytes or DEFAULT_LIMITS.max_bytes,
        max_pixels=max(1, round(max_megapixels * 1e6)) if max_megapixels else DEFAULT_LIMITS.max_pixels,
    )
