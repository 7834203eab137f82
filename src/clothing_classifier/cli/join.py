"""``clothing join``: finished runs → one that answers with the mean of their logits."""

from __future__ import annotations

from pathlib import Path

import click

from clothing_classifier.cli.train import require_own

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=_FOLDER)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The joined run's folder.")
@click.option(
    "--crossval",
    "crossvals",
    multiple=True,
    metavar="RUN",
    type=_FOLDER,
    help="For models: the joined `clothing crossval` runs of the same approaches, once for each protocol.",
)
def command(runs: tuple[Path, ...], out: Path, crossvals: tuple[Path, ...]) -> None:
    """Join finished RUNs: several networks look at each photo, and the mean of their logits is the answer.

    Networks of different kinds err on different photos, so together they may be better than the best of them: step 2
    measures it. They cost the sum of their time and size. Nothing learns here, so it takes seconds. Needs the extra
    `own`, and no torch.

    \b
    1. clothing crossval A …; clothing crossval B …     with the same data, folds and seed
    2. clothing join A-folds B-folds --out AB-folds     what A and B do together
    3. clothing train A --crossval A-folds …; the same for B
    4. clothing join A-model B-model --crossval AB-folds --out AB

    AB/model.onnx is one model file, as good for everything as any other: its evidence is exact, and your own classes
    can be built on it.

    Exit codes: 0, the run is there; 2, the runs cannot be joined, and the message says why.
    """  # noqa: D301
    if len({run.resolve() for run in runs}) < len(runs):
        raise click.UsageError("a run is named twice")
    if out.resolve() in {run.resolve() for run in (*runs, *crossvals)}:
        raise click.UsageError("--out is one of the runs; choose another folder")
    require_own("to join runs takes")
    from clothing_classifier.runs import join_runs

    metrics = join_runs(runs, out, crossvals)
    for name, figures in metrics.items() if crossvals else [("all", metrics)]:
        low, high = figures["intervals"]["weighted_f1"]
        click.echo(
            f"{name:<13}{figures['photos']:>5} photos   weighted F1 {figures['weighted_f1']:.3f} "
            f"({low:.3f} to {high:.3f})   macro F1 {figures['macro_f1']:.3f}   accuracy {figures['accuracy']:.3f}"
        )
    if crossvals:
        click.echo(f"The model is {out / 'model.onnx'}.")
