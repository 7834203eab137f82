"""``clothing compare``: cross-validation runs → a table and a report."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    default="report.html",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The report; an existing file is replaced.",
)
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the table to a file, too.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The dataset's folder, or that where a table's paths start, for the photos of mistakes. Without it, photos "
    "are left out.",
)
@click.option("--no-photos", is_flag=True, help="Leave photos out.")
@click.option("--title", help="The report's heading.")
def command(
    runs: tuple[Path, ...], out: Path, markdown: Path | None, data: Path | None, no_photos: bool, title: str | None
) -> None:
    """Compare RUNs of `clothing crossval`: a Markdown table on standard output, and a report in one HTML file.

    The report loads nothing from anywhere: it can be mailed, printed and opened without a network. It says which
    approach is best and whether that is more than chance, and shows figures class by class, confusions, calibration,
    cost, the worst mistakes, and labels that look wrong.

    Exit codes: 0, both are written; 2, a run is not finished or damaged, and the message names its file.
    """
    from clothing_classifier.evaluation.comparison import full_table, read_run
    from clothing_classifier.evaluation.report import TITLE, render
    from clothing_classifier.runs.folder import write_bytes

    places = [run.resolve() for run in runs]
    if len(set(places)) < len(places):
        raise click.UsageError("a run is named twice")
    read = [read_run(run) for run in runs]
    table = full_table([run.result for run in read])
    write_bytes(out, render(read, title=title or TITLE, data=data, photos=not no_photos).encode())
    if markdown is not None:
        write_bytes(markdown, f"{table}\n".encode())
    click.echo(table)
    without = "" if data is not None or no_photos else ", without photos; --data DIR shows them"
    click.echo(f"The report is {out} ({out.stat().st_size / 1e6:.1f} MB{without}).", err=True)
