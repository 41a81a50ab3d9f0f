"""What a training takes adds up over the processes that it was restarted in."""

import torch

from sensorium_models.training.usage import Usage

CPU = torch.device("cpu")


def test_restarts_add_up() -> None:
    earlier = {
        "wall_seconds": 100.0,
        "gpu_seconds": 60.0,
        "energy_joules": 5.0,
        "peak_memory_mb": {"host": 1e9, "gpu": 7.0},
        "machines": ["an old one"],
    }
    usage = Usage(CPU, processes=1)
    usage.restore(earlier)
    report = usage.report()
    assert report["wall_seconds"] >= 100
    # Nothing of this process ran on a GPU; what an earlier one did stays.
    assert report["gpu_seconds"] == 60
    assert report["energy_joules"] == 5
    assert report["peak_memory_mb"] == {"host": 1e9, "gpu": 7.0}
    assert report["machines"][0] == "an old one"
    assert len(report["machines"]) == 2
    assert Usage(CPU, processes=1).report()["energy_joules"] is None
