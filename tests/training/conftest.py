"""Tiny recordings whose neurons follow one pixel each, and tiny systems that can learn them."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sensorium_models.configuration import merged, read_yaml
from sensorium_models.recordings.preprocess import write_store
from sensorium_models.recordings.splits import SPLIT_COLUMNS
from sensorium_models.systems import SYSTEMS_FOLDER, System, with_changes
from sensorium_models.training.loop import train_member

FRAME_SHAPE = (12, 14)
LAG = 1  # frames from a pixel to the response


@dataclass(frozen=True)
class Laboratory:
    """Two recordings, A larger than B, the pixel (row, column) of each neuron, and a split."""

    stores: dict[str, Path]
    pixels: dict[str, np.ndarray]
    splits: pd.DataFrame


def simulated_store(
    folder: Path,
    animal: str,
    *,
    seed: int,
    neurons: int,
    train: int,
    oracle: int,
    frames: int = 30,
    flicker: float = 0.0,
    held: int = 1,
) -> tuple[Path, np.ndarray]:
    """A store with trials of `frames` frames: train, then oracle, then two of tier none.

    The video is white noise, of which a part `flicker` is the same in all pixels of `held` frames.
    """
    rng = np.random.default_rng(seed)
    height, width = FRAME_SHAPE
    pixels = np.stack([rng.integers(3, s - 3, neurons) for s in FRAME_SHAPE], axis=1)
    tiers = ["train"] * train + ["oracle"] * oracle + ["none"] * 2
    archive = folder / f"{animal}.zip"
    with zipfile.ZipFile(archive, "w") as file:

        def put(name: str, array: np.ndarray) -> None:
            buffer = BytesIO()
            np.save(buffer, array, allow_pickle=False)
            file.writestr(f"recording-{animal}/{name}.npy", buffer.getvalue())

        for trial in range(len(tiers)):
            noise = rng.uniform(-127, 127, (frames, height, width))
            common = rng.uniform(-127, 127, (-(-frames // held), 1, 1)).repeat(held, 0)[:frames]
            video = np.round(128 + (1 - flicker) * noise + flicker * common)
            drive = (video[:, pixels[:, 0], pixels[:, 1]] - 128) / 64
            drive = np.concatenate([np.zeros((LAG, neurons)), drive[:-LAG]])
            responses = rng.poisson(np.exp(drive)) + 0.01
            for name, array in (
                ("videos", video.astype(np.float64)),
                ("responses", responses),
                ("behavior", rng.normal(size=(frames, 2))),
                ("pupil_center", rng.normal(size=(frames, 2))),
            ):
                put(f"data/{name}/{trial}", np.moveaxis(array, 0, -1))
        put("meta/trials/tiers", np.array(tiers))
        put("meta/neurons/unit_ids", np.arange(1, neurons + 1))
        put("meta/neurons/cell_motor_coordinates", rng.integers(0, 500, (neurons, 3)))
    store = folder / f"{animal}.h5"
    write_store(
        archive=archive,
        store=store,
        animal=animal,
        neurons=neurons,
        frame_rate_hz=30.0,
        known_tiers=("train", "oracle", "none"),
        withheld_tiers=(),
        stimulus_types=None,
    )
    return store, pixels


def split_of(sizes: dict[str, tuple[int, int]], member: str) -> pd.DataFrame:
    rows = [
        (member, animal, trial, tier, f"{animal}{trial}", "", "movie", role)
        for animal, (train, oracle) in sizes.items()
        for trial, tier, role in [
            *((t, "train", "train") for t in range(train)),
            *((t, "oracle", "select") for t in range(train, train + oracle)),
        ]
    ]
    return pd.DataFrame(rows, columns=list(SPLIT_COLUMNS))


def laboratory_in(folder: Path, **changes: Any) -> Laboratory:
    sizes = {"A": (14, 6), "B": (6, 5)}
    stores, pixels = {}, {}
    for animal, seed, neurons in (("A", 1, 9), ("B", 2, 5)):
        train, oracle = sizes[animal]
        stores[animal], pixels[animal] = simulated_store(
            folder, animal, seed=seed, neurons=neurons, train=train, oracle=oracle, **changes
        )
    return Laboratory(stores, pixels, split_of(sizes, "seed3"))


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """White noise: every pixel on its own."""
    return laboratory_in(tmp_path_factory.mktemp("laboratory"))


@pytest.fixture(scope="session")
def flickering(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """Most of the video is one brightness, so that little training goes a long way."""
    return laboratory_in(tmp_path_factory.mktemp("flickering"), flicker=0.8)


def small_system(name: str = "factorized_baseline", **changes: Any) -> System:
    """A published system shrunk to the laboratory; `changes` are merged into its file."""
    small: dict[str, Any] = {
        "name": name,
        "inputs": {"normalisation": "global_train"},
        "response_unit": "per_neuron_train",
        "recipe": {
            "clip_frames": 16,
            "clips_per_batch": 4,
            "schedule": {"max_epochs": 3},
            "validation": {"skip_frames": 8},
            "start_positions": {"lag_frames": 3, "smoothing_pixels": 0.7},
        },
    }
    if name == "factorized_baseline":
        small["core_settings"] = {
            "channels": [4, 6],
            "spatial_kernels": [3, 3],
            "temporal_kernels": [2, 2],
            "spatial_strides": [1, 1],
        }
        small["readout_settings"] = {"positions": "response_triggered_average"}
    content = merged(merged(read_yaml(SYSTEMS_FOLDER / f"{name}.yaml"), small), changes)
    return System.model_validate(content)


# What makes a published recipe small enough for the laboratory and able to learn in a few steps.
SHRUNK_RECIPES: dict[str, dict[str, Any]] = {
    "dwiseneuro": {
        "clip_frames": 8,
        "clips_per_batch": 6,
        "samples_per_epoch": 36,
        "optimizer": {"learning_rate": 0.02},
        "schedule": {"max_epochs": 3, "warm_up_epochs": 1},
        "moving_average": {"decay": 0.7},
    },
    "dynamic_v1fm": {
        "clip_frames": 16,
        "clips_per_batch": 4,
        "optimizer": {"learning_rate": 0.02},
        "schedule": {"max_epochs": 3, "warm_up_steps": 4, "constant_epochs": 1},
        "validation": {"skip_frames": 8},
    },
    "viv1t": {
        "clip_frames": 16,
        "clips_per_batch": 4,
        "loss": {"correlation_weight": 10.0},
        "optimizer": {"learning_rate": 0.015, "parts": {"core": {"learning_rate": 0.02}}},
        "schedule": {"max_epochs": 3, "patience_epochs": 1},
        "validation": {"skip_frames": 8},
    },
    "viv1t_2025": {
        "clip_frames": 30,
        "optimizer": {"learning_rate": 0.015, "parts": {"core": {"learning_rate": 0.02}}},
        "schedule": {"max_epochs": 3, "warm_up_steps": 4},
        "clipping": {"quantile": 0.9},
        "compile": False,
        "validation": {"skip_frames": 8},
    },
}


def recipe_system(recipe: str, **changes: Any) -> System:
    """The shrunk factorized baseline, trained by another published recipe; `changes` of that."""
    if recipe == "factorized_baseline":
        return small_system(recipe=changes)
    content = small_system(readout_settings={"sigma_range": 0.1}).model_dump(mode="json")
    published = read_yaml(SYSTEMS_FOLDER / f"{recipe}.yaml")
    if published.get("inference") == "sliding_windows":
        content["inference"] = "sliding_windows"
    shrunk = {"recipe": merged(published["recipe"], SHRUNK_RECIPES[recipe])}
    content["recipe"] = with_changes(shrunk, {"recipe": changes})["recipe"]
    return System.model_validate({**content, "name": recipe})


def train_small(laboratory: Laboratory, folder: Path, system: System, **changes: Any) -> Path:
    """Train member seed3 in `folder`; returns the member's folder."""
    arguments: dict[str, Any] = {
        "system": system,
        "member": "seed3",
        "axes": {"seed": 3},
        "training_set": "clean",
        "recordings": laboratory.stores,
        "splits": laboratory.splits,
        "output": folder / "member",
        "checkpoint": folder / "running" / "seed3.ckpt",
        "device": "cpu",
        "threads": 1,
        "first_scored_frame": 8,
        "cap_frames": 30,
        "drop_last_frames": 1,
        "score_unit": "per_neuron_train",
        "compared_tiers": ["oracle"],
        "record": {"fingerprint": {"digest": "abc", "content": {"sources": "0f" * 8}}},
    }
    train_member(**{**arguments, **changes})
    return folder / "member"


# Test modules cannot import this file (pytest's importlib mode), so its functions are fixtures.


@pytest.fixture(scope="session")
def shrunk() -> Callable[..., System]:
    return small_system


@pytest.fixture(scope="session")
def train() -> Callable[..., Path]:
    return train_small


@pytest.fixture(scope="session")
def of_recipe() -> Callable[..., System]:
    return recipe_system


@pytest.fixture(scope="session")
def make_laboratory() -> Callable[..., Laboratory]:
    return laboratory_in
