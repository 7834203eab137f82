"""The wheel is whole: installed elsewhere, away from the checkout, it classifies a photo with its own model."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("hatchling", reason="needs the extra dev")


def test_the_wheel_classifies_a_photo_away_from_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"clothing_classifier", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert "clothing_classifier/models/clothing.onnx" in names
    assert "clothing_classifier/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert wheel.stat().st_size < 40 * 2**20

    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, timeout=300)
    predicted = subprocess.run(
        [str(site / "bin" / "clothing"), "predict", str(ROOT / "examples" / "dress.jpg"), "--format", "csv"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    header, row = predicted.stdout.splitlines()
    assert header == "path,label,probability,sure,error"
    assert ",Dress," in row
