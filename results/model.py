"""Make the model that ships again: cross-validation, training on all photos, the file in the package.

    python results/model.py --data clothing-dataset --weights tf_efficientnet_b0.safetensors

Photos and weights must be the very ones that the shipped model was made from; ``--other-inputs`` makes a model from
others. Runs that were stopped go on where they were, and finished ones cost seconds. On two cores it takes about an
hour and a half, on a GPU some minutes. In the end `results/model.json`, the tables and the package's model are new.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import click
from collect import main as write_tables

from clothing_classifier.card import read_model
from clothing_classifier.dataset import DatasetError, read_dataset

APPROACH = "efficientnet-b0"
PROTOCOLS = ("sender",)
DATA = "a14e1129e5f7276e1fb2c0fec858ab05c1c6ec9fd1b5b116dba4dbd3f5c3c887"
"""Digest of the manifest that `clothing data check` writes: every photo's content, class and sender."""
WEIGHTS = "b0e7c043b9bb587e0083a352ed8e8029d8015dc50e052ae26bebceb9db643ce5"
"""SHA-256 of the weights' file."""
LICENCE = "Apache-2.0 (encoder of TRACER, Lee et al., AAAI 2022; ImageNet-1k)"

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "clothing_classifier" / "models" / "clothing.onnx"


def check_inputs(data: Path, weights: Path) -> list[str]:
    """Return what differs from the inputs of the model that ships."""
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    differences = [f"{weights} has the SHA-256 {found}, not {WEIGHTS}"] if found != WEIGHTS else []
    digest = read_dataset(data).digest
    if digest != DATA:
        differences.append(f"{data} has the digest {digest}, not {DATA}")
    return differences


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--weights", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", default=Path("runs"), show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--device", default="auto", show_default=True)
@click.option("--other-inputs", is_flag=True, help="Make a model from other photos or weights.")
def main(data: Path, weights: Path, out: Path, device: str, other_inputs: bool) -> None:
    """Make the model that ships again, and put it into the package."""
    try:
        differences = check_inputs(data, weights)
    except DatasetError as error:
        raise click.ClickException(str(error)) from error
    if differences and not other_inputs:
        raise click.ClickException("; ".join(differences) + "; --other-inputs makes a model from these all the same")
    common = ["--data", str(data), "--weights", str(weights), "--device", device]
    if not differences:
        common += ["--weights-licence", LICENCE]
    folds = {protocol: out / f"{APPROACH}-{protocol}" for protocol in PROTOCOLS}
    for protocol, folder in folds.items():
        run("crossval", APPROACH, "--folds", protocol, "--out", str(folder), *common)
    judges = [word for folder in folds.values() for word in ("--crossval", str(folder))]
    run("train", APPROACH, "--out", str(out / "model"), *common, *judges)
    read_model(out / "model" / "model.onnx")  # whole, before it replaces the one that is there
    shutil.copyfile(out / "model" / "model.onnx", PACKAGE)
    sys.argv[1:] = [str(folder) for folder in (*folds.values(), out / "model")]
    write_tables()


def run(*words: str) -> None:
    """Run one of this project's commands, or end with its exit code."""
    code = subprocess.run([sys.executable, "-m", "clothing_classifier", *words], check=False).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
