"""One SLURM cluster for all tests of this folder, and one study that nothing interrupted."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.lab import SlurmLab, make_slurm_lab


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of one node with two pretended GPUs; skips where none can be started."""
    if reason := missing():
        pytest.skip(reason)
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def uninterrupted(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> SlurmLab:
    """Both systems trained and scored by this machine alone."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "lab"
    lab = make_slurm_lab(folder, None, systems=("watched", "hurried"))
    lab.finish("scores")
    return lab
