"""A small simulated pair, and a plain reader written from the description of the layout."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sensorium_models.simulation.recording import SimulationSettings, write_recording
from sensorium_models.simulation.truth import Truth, truth_path

SMALL = SimulationSettings(
    neurons=24, training_trials=8, test_videos=2, repeats=2, none_trials=2, frame_shape=(18, 32)
)
BONUS = {
    "public": {
        "live_test_bonus": ["pink_noise"],
        "final_test_bonus": ["gaussian_dots", "random_dots"],
    },
    "withheld": {"live_test_bonus": ["images"], "final_test_bonus": ["gabor", "pink_noise"]},
}


class ReleasedReader:
    """Reads `{folder}/...` of a zip with numpy alone; time is the last axis."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        self.names = self.zip.namelist()
        self.folder = next(n for n in self.names if not n.startswith("__MACOSX")).split("/")[0]

    def array(self, name: str) -> np.ndarray:
        content = io.BytesIO(self.zip.read(f"{self.folder}/{name}.npy"))
        return np.load(content, allow_pickle=False)

    @property
    def tiers(self) -> np.ndarray:
        return self.array("meta/trials/tiers")

    def valid_frames(self, trial: int) -> int:
        """First NaN of any array, the longest possible length where there is none."""
        lengths = []
        for name in ("videos", "responses", "behavior", "pupil_center"):
            if f"{self.folder}/data/{name}/{trial}.npy" not in self.names:
                continue
            array = self.array(f"data/{name}/{trial}")
            bad = np.isnan(array.astype(float)).reshape(-1, array.shape[-1]).any(axis=0)
            lengths.append(int(np.argmax(bad)) if bad.any() else len(bad))
        return min(lengths)


@dataclass(frozen=True)
class Animal:
    path: Path
    reader: ReleasedReader
    truth: Truth


Writer = Callable[..., Animal]


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    opened = []

    def write_animal(
        animal: str,
        role: str,
        settings: SimulationSettings,
        bonus_types: dict[str, list[str]] | None = None,
        metadata: Path | None = None,
        seed: int = 3,
    ) -> Animal:
        path = tmp_path_factory.mktemp(animal) / f"{animal}.zip"
        write_recording(
            archive=path,
            folder=f"dynamic1-2-3-Video-{animal}",
            animal=animal,
            seed=seed,
            pair="one",
            role=role,
            settings=settings,
            bonus_types=BONUS[role] if bonus_types is None else bonus_types,
            metadata=metadata,
        )
        made = Animal(path, ReleasedReader(path), Truth(truth_path(path)))
        opened.append(made)
        return made

    yield write_animal
    for made in opened:
        made.truth.close()
        made.reader.zip.close()


@pytest.fixture(scope="session")
def pair(write: Writer) -> tuple[Animal, Animal]:
    """A public and a withheld animal that see the same movies."""
    return write("A", "public", SMALL), write("F", "withheld", SMALL)


@pytest.fixture(scope="session")
def metadata_folder() -> Path:
    """The metadata of the real animals, where this computer has them."""
    root = Path(__file__).resolve().parents[2]
    shared = Path(os.environ.get("SENSORIUM_SHARED", root.parent / "shared"))
    folder = shared / "data" / "sensorium_2023_metadata"
    if not (folder / "mouseF.npz").is_file():
        pytest.skip(f"no metadata of real animals in {folder} (set SENSORIUM_SHARED)")
    return folder
