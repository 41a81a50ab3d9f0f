"""Where a network runs, and what makes its numbers the same from run to run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable(device: torch.device, *, threads: int) -> Iterator[None]:
    """Same numbers from run to run: a fixed number of threads and, on the CPU, exact kernels.

    On a GPU convolutions are deterministic, but bilinear sampling has no deterministic gradient, so
    only the order of the data and the state are exact there. Earlier settings come back afterwards.
    """
    exact = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    convolutions = torch.backends.cudnn.deterministic
    count = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(device.type == "cpu")
    # Filling fresh memory guards against reading it unset, which nothing here does; it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(count)
        torch.use_deterministic_algorithms(exact)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic = convolutions


def resolved_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one, else the CPU; other names are PyTorch's."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
