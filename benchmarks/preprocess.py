"""How fast an archive becomes a recording store, per core, and in how much memory.

    python benchmarks/preprocess.py [--trials 60] [--archive ANIMAL.zip] [--quick]

Counted are the uncompressed bytes of the archive's arrays; its own checksum and the store's digest
are part of the work. A fresh interpreter does it, so that its peak memory is that of the stage.
"""

import json
import resource
import sys
import time
from pathlib import Path

import full_scale

from sensorium_models.recordings.archives import open_archive


def measure(archive: Path, store: Path) -> None:
    """In a fresh interpreter: seconds on the clock and of the processor, peak memory."""
    started, busy = time.perf_counter(), time.process_time()
    full_scale.preprocess(archive, store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([time.perf_counter() - started, time.process_time() - busy, peak]))


def main() -> None:
    options = full_scale.arguments(__doc__.splitlines()[0]).parse_args()
    with full_scale.work_folder(options) as folder:
        archive = full_scale.simulated_archive(options, folder)
        with open_archive(archive) as opened:
            size = opened.uncompressed_bytes
            print(f"{len(opened.neuron_ids)} neurons, {len(opened.tiers)} trials")
        store = folder / "animal.h5"
        command = (__file__, "--measure", str(archive), str(store))
        full_scale.in_new_process(*command)  # reads the archive into the page cache
        elapsed, busy, peak = json.loads(full_scale.in_new_process(*command))
        full_scale.report("uncompressed input", f"{size / 1e9:.2f} GB")
        full_scale.report("elapsed", f"{elapsed:.1f} s, {size / elapsed / 1e6:.0f} MB/s")
        speed = size / busy / 1e6
        full_scale.report(
            "per second of one core", f"{speed:.0f} MB/s", "at least 100 MB/s", speed >= 100
        )
        full_scale.report("peak memory", f"{peak / 1e9:.2f} GB", "under 1.5 GB", peak < 1.5e9)
        print(full_scale.machine())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
