from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("call", ["threads.limit_threads()", "fit.choose_device('cpu')"])
@pytest.mark.parametrize(("cores", "before", "after"), [(1, "2", "1"), (9, "2", "2")])
def test_numeric_libraries_are_held_to_these_cores_and_never_given_more(
    cores: int, before: str, after: str, call: str
) -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    code = (
        "import torch; from threadpoolctl import threadpool_info; "
        "from clothing_classifier.training import fit, threads; "
        f"threads.available_cores = lambda: {cores}; {call}; "
        "print({*[found['num_threads'] for found in threadpool_info()], torch.get_num_threads()})"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": before, "OPENBLAS_NUM_THREADS": before}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip() == f"{{{after}}}"
