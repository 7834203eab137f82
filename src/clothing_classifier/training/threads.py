"""The threads that learning computes with."""

from __future__ import annotations

import sys

from threadpoolctl import ThreadpoolController

from clothing_classifier.machine import available_cores


def limit_threads() -> None:
    """Hold the numeric libraries that are loaded (BLAS, OpenMP, PyTorch) to as many threads as there are cores to use.

    By themselves they count the cores that the process is bound to, and know nothing of a container's quota. Where they
    use fewer threads, as ``OMP_NUM_THREADS`` may have told them, that stays.
    """
    cores = available_cores()
    for library in ThreadpoolController().lib_controllers:
        if (library.num_threads or 1) > cores:
            library.set_num_threads(cores)
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
