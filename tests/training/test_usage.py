"""What a training takes adds up over the processes that it was restarted in."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it of a program alone")
def test_memory_is_that_of_this_program_not_of_what_started_it() -> None:
    program = (
        "from sensorium_models.provenance import peak_memory_mb as peak; import sys;"
        "held = b'x' * (0 if sys.argv[1:] else 300_000_000); import subprocess;"
        "print(peak()) if sys.argv[1:] else "
        "subprocess.run([sys.executable, '-c', sys.orig_argv[2], 'child'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 300


class Driver:
    """What the package nvidia-ml-py offers, with a GPU that has used so many millijoules."""

    def __init__(self, millijoules: list[int]) -> None:
        self._left = millijoules
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == "GPU-1234"
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self._left:
            raise RuntimeError("this GPU does not tell")
        return self._left.pop(0)


@pytest.mark.parametrize(
    ("told", "joules"), [([1_000_000, 1_250_000], 250.0), ([1_000_000], None), ([], None)]
)
def test_energy_is_the_difference_that_the_driver_tells(
    monkeypatch: pytest.MonkeyPatch, told: list[int], joules: float | None
) -> None:
    driver = Driver(told)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234")
    )
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    assert Usage(torch.device("cuda"), processes=1).report()["energy_joules"] == joules
    assert driver.open == 0
