"""One SLURM cluster for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of one node with two pretended GPUs; skips where none can be started."""
    if reason := missing():
        pytest.skip(reason)
    with Cluster() as running:
        yield running
