"""``clothing serve``: the model over HTTP, with a page."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from clothing_classifier.cli import Number, model_option, printable, provider_option, threshold_option

if TYPE_CHECKING:
    from clothing_classifier.execution import Choice

_KEY = "CLOTHING_API_KEY"
_FORM_BYTES = 2**16  # what a form has around a photo, at most


@click.command()
@model_option
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on. 0.0.0.0 is all of them."
)
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes any that is free."
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="A further name by which the service may be called, as behind a proxy. May be given several times.",
)
@threshold_option
@click.option("--max-bytes", type=click.IntRange(1), help="Largest photo, in bytes.  [default: 20971520]")
@click.option(
    "--max-megapixels",
    type=Number(0, min_open=True),
    help="Largest photo, in millions of pixels.  [default: 50]",
)
@click.option("--max-files", type=click.IntRange(1), help="Most photos in one request.  [default: 64]")
@click.option("--max-requests", type=click.IntRange(1), help="Most requests computed at once.  [default: 64]")
@click.option(
    "--timeout",
    type=Number(0, min_open=True),
    help="Seconds that decoding one photo may take.  [default: 10]",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="How many threads compute, and how many processes decode.  [default: the cores]",
)
@click.option("--access-log", is_flag=True, help="Log each request once it is answered, on standard error.")
@provider_option
def command(
    model: str | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    threshold: float | None,
    max_bytes: int | None,
    max_megapixels: float | None,
    max_files: int | None,
    max_requests: int | None,
    timeout: float | None,
    threads: int | None,
    access_log: bool,
    provider: Choice,
) -> None:
    """Serve the model over HTTP: an API for other systems, and a page for people. Needs the extra `serve`.

    It listens on this machine only, unless --host says otherwise. If the environment variable CLOTHING_API_KEY is set,
    clients of the API must show that key. Requests over a limit are refused with a reason; while the service is
    busy, or bodies take 512 MB or a quarter of the memory, further ones are told to try again later.

    SIGTERM or Ctrl-C finishes what is under way, then ends with 0. Exit code 2: the usage is wrong, the model cannot
    be used, or the address is taken.
    """
    import logging
    from dataclasses import replace

    try:
        from clothing_classifier.service.app import Service
        from clothing_classifier.service.guard import allowed_hosts, is_everywhere
        from clothing_classifier.service.server import listen, serve
        from clothing_classifier.service.settings import Settings
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f'the service needs {error.name}; install it with: pip install "clothing-classifier[serve]"'
        ) from error
    from clothing_classifier.card import read_model
    from clothing_classifier.machine import available_memory

    key = os.environ.get(_KEY)
    limits: dict[str, Any] = {
        "bytes": max_bytes,
        "pixels": max_megapixels and max(1, round(max_megapixels * 1e6)),
        "files": max_files,
        "requests": max_requests,
        "seconds": timeout,
        "decoders": threads,
    }
    try:
        settings = Settings(
            hosts=allowed_hosts(host, set(names)),
            key=key,
            access_log=access_log,
            **{name: value for name, value in limits.items() if value is not None},
        )
        # Whatever a photo may be, a form of one photo may be. Bodies take at most a quarter of the memory, but one form
        # can always be held, and two photos.
        photo = settings.bytes + _FORM_BYTES
        form = max(settings.request_bytes, photo)
        held = max(min(settings.held_bytes, available_memory() // 4), form, 2 * photo)
        settings = replace(settings, request_bytes=form, held_bytes=held)
    except ValueError as error:
        raise click.ClickException(str(error).replace("the key", _KEY)) from error
    try:
        listener = listen(host, port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {printable(host)}, port {port} ({error.strerror}); choose another --port or --host"
        ) from error
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    if access_log:
        logging.getLogger("clothing_classifier.service").setLevel(logging.INFO)
    with listener:
        service = Service(read_model(model), settings, threshold=threshold, threads=threads, provider=provider)
        name = "localhost" if is_everywhere(host) else f"[{host}]" if ":" in host else host
        where = f"http://{name}:{listener.getsockname()[1]}/"
        if is_everywhere(host):
            where += " and on this machine's other addresses"

        def tell() -> None:
            click.echo(f"Serving {printable(service.name)} on {where} (Ctrl-C stops)", err=True)
            if key is None and not ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback:
                click.echo(f"Whoever reaches this address may use it; set {_KEY} to ask for a key.", err=True)

        serve(service, listener, ready=tell)
