"""The salamander recording (Liu et al. 2017, doi 10.1038/s41467-017-00156-9), converted.

163 retinal ganglion cells, 36,000 frames of white-noise video; facts from the README beside the
data, which stay where they are. In the released layout, but without behaviour, pupil, coordinates
or published statistics, and with frames of another size: what a lab's own recording may look like.

    python tests/real/convert.py path/to/liu2017_salamander_rgc_noise path/to/archive.zip
"""

import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FOLDER = "salamander_retina-liu2017-noise"
DATA_FOLDER = "data/liu2017_salamander_rgc_noise"
CLIP_FRAMES = 300
# First frame of each tier, in time order: 84 clips to learn from, 12 to select on, 24 to test on.
TIERS = {"train": 0, "oracle": 25_200, "final_test_main": 28_800}
FRAMES = 36_000


def find_data() -> Path | None:
    """The folder of the recording below SENSORIUM_SHARED or `../shared`; None where it is not."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    folder = Path(os.environ.get("SENSORIUM_SHARED") or beside) / DATA_FOLDER
    wanted = [folder / "stimulus.npz", folder / "responses.npz"]
    return folder if all(file.is_file() for file in wanted) else None


def load(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Video (36000, 36, 36) uint8, 0 to 4 bright squares, and spike counts (36000, 163) uint8."""
    with np.load(data / "stimulus.npz", allow_pickle=False) as file:
        video = file["stimulus"]
    with np.load(data / "responses.npz", allow_pickle=False) as file:
        counts = file["spike_counts"].T
    if video.shape != (FRAMES, 36, 36) or len(counts) != FRAMES:
        raise ValueError(
            f"{data}: expected {FRAMES} frames of 36 x 36 pixels, found a video of {video.shape} "
            f"and counts of {counts.shape}; this is not the recording that tests/real describes."
        )
    return video, counts


def tier_of(clip: int) -> str:
    """The tier of a clip, counted from the start of the recording."""
    return [tier for tier, first in TIERS.items() if clip * CLIP_FRAMES >= first][-1]


def archive_arrays(video: np.ndarray, counts: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Every file of the released layout: its name below the recording's folder, and its array."""
    clips = range(len(video) // CLIP_FRAMES)
    yield "meta/trials/tiers.npy", np.array([tier_of(clip) for clip in clips])
    yield "meta/neurons/unit_ids.npy", np.arange(counts.shape[1], dtype=np.int64)
    for clip in clips:
        frames = slice(clip * CLIP_FRAMES, (clip + 1) * CLIP_FRAMES)
        # On disk time is the last axis.
        yield f"data/videos/{clip}.npy", np.ascontiguousarray(np.moveaxis(video[frames], 0, -1))
        yield f"data/responses/{clip}.npy", np.ascontiguousarray(counts[frames].T, np.float32)


def write_archive(data: Path, destination: Path) -> Path:
    """Write to `destination`: a zip if its name ends in .zip, else the folder `destination/FOLDER`.

    Returns:
        The archive: the zip file or the recording's folder.
    """
    arrays = archive_arrays(*load(data))
    if destination.suffix != ".zip":
        for name, array in arrays:
            path = destination / FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array, allow_pickle=False)
        return destination / FOLDER
    destination.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays:
            with archive.open(f"{FOLDER}/{name}", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return destination


if __name__ == "__main__":
    print(write_archive(Path(sys.argv[1]), Path(sys.argv[2])))
