"""Where a network runs, and what makes its numbers the same from run to run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable(
    device: torch.device, *, threads: int, deterministic: bool = False
) -> Iterator[None]:
    """Same numbers from run to run: a fixed number of threads and, on the CPU, exact kernels.

    On a GPU convolutions are deterministic, but bilinear sampling has no deterministic gradient, so
    only the order of the data and the state are exact there. `deterministic` asks for exact kernels
    on a GPU, too, where there are any; PyTorch warns of the others. Earlier settings come back
    afterwards.
    """
    exact = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    convolutions = torch.backends.cudnn.deterministic
    count = torch.get_num_threads()
    torch.set_num_threads(threads)
    on_gpu = device.type != "cpu"
    if on_gpu and deterministic:
        # Read by cuBLAS when the first matrices are multiplied.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic or not on_gpu, warn_only=on_gpu)
    # Filling fresh memory guards against reading it unset, which nothing here does; it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(count)
        torch.use_deterministic_algorithms(exact, warn_only=warns)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic = convolutions


def resolved_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one, else the CPU; other names are PyTorch's."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
