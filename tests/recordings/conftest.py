"""Small archives in the released layout, made from random numbers, and stores written from them."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium_models.recordings.preprocess import write_store
from sensorium_models.recordings.store import Recording

FOLDER = "dynamic00000-1-1-Video-0123456789abcdef"
KNOWN_TIERS = (
    "train",
    "oracle",
    "live_test_main",
    "live_test_bonus",
    "final_test_main",
    "final_test_bonus",
    "none",
)
TEST_TIERS = tuple(tier for tier in KNOWN_TIERS if "test" in tier)
TYPES = {"live_test_bonus": ["pink_noise"], "final_test_bonus": ["gaussian_dots", "random_dots"]}

Content = dict[str, Any]  # file name inside the recording's folder -> array or bytes


def make_content(
    *,
    seed: int = 0,
    neurons: int = 7,
    height: int = 6,
    width: int = 9,
    padded: int = 33,
    train: int = 8,
    withheld: tuple[str, ...] = (),
    modalities: tuple[str, ...] = ("videos", "responses", "behavior", "pupil_center"),
    video_dtype: str = "float64",
    statistics: bool = True,
) -> Content:
    """One recording: all tiers, ids with gaps, trials of several lengths, NaN-padded to `padded`.

    The released tier order is shuffled; `video_dtype` uint8 means trials that fill all frames.
    """
    rng = np.random.default_rng(seed)
    tiers = ["train"] * train + [tier for tier in KNOWN_TIERS[1:] for _ in range(3)]
    tiers = [str(tier) for tier in rng.permutation(tiers)]
    lengths = rng.integers(padded - 9, padded - 2, len(tiers))
    shapes = {
        "videos": (height, width),
        "responses": (neurons,),
        "behavior": (2,),
        "pupil_center": (2,),
    }
    content: Content = {}
    for trial, (tier, length) in enumerate(zip(tiers, lengths, strict=True)):
        for modality in modalities:
            shape = (*shapes[modality], padded)
            if modality == "videos":
                array = rng.integers(0, 256, shape).astype(video_dtype)
            elif modality == "responses":
                array = np.zeros(shape) if tier in withheld else rng.gamma(0.5, 3.0, shape)
            else:
                array = rng.normal(50.0, 8.0, shape).astype(np.float32)
            zeros = modality == "responses" and tier in withheld
            if array.dtype.kind == "f" and not zeros:
                array[..., length:] = np.nan
            content[f"data/{modality}/{trial}.npy"] = array
    content["meta/trials/tiers.npy"] = np.array(tiers)
    content["meta/neurons/unit_ids.npy"] = np.cumsum(rng.integers(1, 4, neurons))
    content["meta/neurons/cell_motor_coordinates.npy"] = rng.integers(0, 900, (neurons, 3))
    if statistics:
        for modality in modalities:
            add_statistics(content, modality)
    return content


def add_statistics(content: Content, modality: str) -> None:
    """Per frame index over the training trials, NaN where no trial reached."""
    tiers = content["meta/trials/tiers.npy"]
    arrays = [content[f"data/{modality}/{t}.npy"] for t in np.flatnonzero(tiers == "train")]
    stacked = np.stack(arrays).astype(np.float64)
    reached = ~np.isnan(stacked).all(axis=0)
    for key, function in {
        "mean": np.nanmean,
        "std": np.nanstd,
        "median": np.nanmedian,
        "min": np.nanmin,
        "max": np.nanmax,
    }.items():
        result = np.full(stacked.shape[1:], np.nan)
        result[reached] = function(stacked[:, reached], axis=0)
        content[f"meta/statistics/{modality}/all/{key}.npy"] = result


def npy_bytes(array: Any) -> bytes:
    if isinstance(array, bytes):
        return array
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def write_zip(
    content: Content,
    path: Path,
    *,
    folder: str = FOLDER,
    macos: bool = True,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{folder}/", b"")
        archive.writestr(f"{folder}/config.json", b"{}")
        for name, array in content.items():
            archive.writestr(f"{folder}/{name}", npy_bytes(array))
        if macos:
            archive.writestr(f"__MACOSX/{folder}/data/videos/._0.npy", b"Mac OS X")
            archive.writestr(f"{folder}/data/videos/._0.npy", b"Mac OS X")
            archive.writestr(f"{folder}/.DS_Store", b"Mac OS X")
    return path


def write_folder(content: Content, path: Path) -> Path:
    for name, array in content.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(npy_bytes(array))
    return path


def preprocess(archive: Path, store: Path, **changes: Any) -> Recording:
    arguments: dict[str, Any] = {
        "archive": archive,
        "store": store,
        "animal": "A",
        "neurons": None,
        "frame_rate_hz": 30.0,
        "known_tiers": KNOWN_TIERS,
        "withheld_tiers": (),
        "stimulus_types": TYPES,
    }
    write_store(**{**arguments, **changes})
    return Recording(store)


# Test modules cannot import this file (pytest's importlib mode), so its functions are fixtures.


@pytest.fixture(scope="session")
def make() -> Callable[..., Content]:
    return make_content


@pytest.fixture(scope="session")
def zipped() -> Callable[..., Path]:
    return write_zip


@pytest.fixture(scope="session")
def unpacked() -> Callable[..., Path]:
    return write_folder


@pytest.fixture(scope="session")
def prepare() -> Callable[..., Recording]:
    return preprocess


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A public recording with everything in it."""
    folder = tmp_path_factory.mktemp("public")
    return preprocess(write_zip(make_content(), folder / "A.zip"), folder / "A.h5")


@pytest.fixture(scope="session")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording whose test responses are withheld."""
    folder = tmp_path_factory.mktemp("withheld")
    archive = write_zip(make_content(seed=5, withheld=TEST_TIERS), folder / "F.zip")
    return preprocess(archive, folder / "F.h5", animal="F", withheld_tiers=TEST_TIERS)
