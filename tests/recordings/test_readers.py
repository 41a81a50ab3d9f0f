"""Memory of batches, and the processes that fill it."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sensorium_models.recordings.readers import Arena
from sensorium_models.recordings.store import Recording


def test_an_arena_hands_out_aligned_arrays_until_it_is_full() -> None:
    arena = Arena(bytearray(64 + 256))
    one = arena.empty((5, 2), np.dtype(np.float32))
    other = arena.empty((100,), np.dtype(np.uint8))
    assert one.ctypes.data % 64 == other.ctypes.data % 64 == 0
    one[:], other[:] = 7, 1
    assert (one == 7).all()
    assert not np.shares_memory(one, other)
    with pytest.raises(ValueError, match=r"needs 492 bytes or more, but its memory has \d+"):
        arena.empty((300,), np.dtype(np.uint8))
    arena.clear()
    assert np.shares_memory(arena.empty((4,), np.dtype(np.float32)), one)


def test_processes_end_with_a_training_that_is_killed(recording: Recording, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"""
import time
from pathlib import Path
from sensorium_models.recordings.readers import Readers
from sensorium_models.recordings.samplers import WholeTrials
from sensorium_models.recordings.store import Recording

if __name__ == "__main__":
    recording = Recording(Path({str(recording.path)!r}))
    sampler = WholeTrials(recording=recording, trials=[0], batch_size=1, cap_frames=None, seed=0)
    readers = Readers(
        sampler.recordings, arenas=1, batch_bytes=sampler.batch_bytes, workers=1
    )
    clip, (read,) = readers.read(0, sampler.next_places())
    read.result()
    print(*readers._executor._processes, flush=True)
    time.sleep(60)
""")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        reader = Path(f"/proc/{training.stdout.readline().strip()}")
        assert reader.exists()
        training.kill()
    deadline = time.monotonic() + 30
    while reader.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not reader.exists()
