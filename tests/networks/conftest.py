"""Small systems, animals and clips for the network tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium_models.configuration import Origin
from sensorium_models.networks.encoder import AnimalFacts
from sensorium_models.recordings.clips import Clip
from sensorium_models.recordings.normalisation import Affine, Normalisation
from sensorium_models.recordings.statistics import Statistics
from sensorium_models.systems import System, load_system


@pytest.fixture
def published_system() -> Callable[..., System]:
    """A system as in config/systems, with `section.key=value` style overrides as nested dicts."""

    def load(name: str = "factorized_baseline", **changes: Any) -> System:
        shipped = load_system(name, folders=[], members={}, origin=Origin([], {}))
        content = shipped.model_dump()
        for key, value in changes.items():
            if isinstance(value, dict) and not value.pop("replace", False):
                content[key] = {**content.get(key, {}), **value}
            else:
                content[key] = value
        return System(**content)

    return load


@pytest.fixture
def small_system(published_system: Callable[..., System]) -> System:
    """Two thin layers with 3 + 2 frames of history; frames of 12 x 15 become 7 x 10."""
    return published_system(
        core_settings={
            "channels": [3, 4],
            "spatial_kernels": [4, 3],
            "temporal_kernels": [4, 3],
            "spatial_strides": [1, 1],
        },
        readout_settings={"position_hidden_units": 6},
        prediction_chunk_frames=7,
    )


@pytest.fixture
def make_facts() -> Callable[..., AnimalFacts]:
    """An animal with per-frame statistics for `frames` frames; `lacking` modalities are absent."""

    def make(
        animal: str = "A",
        *,
        neurons: int = 5,
        frame_shape: tuple[int, int] = (12, 15),
        frames: int = 40,
        lacking: tuple[str, ...] = (),
        seed: int = 0,
        **others: Any,
    ) -> AnimalFacts:
        random = np.random.default_rng([seed, sum(animal.encode())])

        def affine(*shape: int, centred: bool) -> Affine:
            scale = random.uniform(0.5, 2, (frames, *shape)).astype(np.float32)
            offset = random.normal(size=scale.shape).astype(np.float32)
            return Affine(offset=offset if centred else np.zeros_like(scale), scale=scale)

        maps = {
            "video": affine(*frame_shape, centred=True),
            "behavior": affine(2, centred=False),
            "pupil_center": affine(2, centred=True),
            "responses": affine(neurons, centred=False),
        }
        facts = {
            "animal": animal,
            "neurons": neurons,
            "coordinates": random.normal(size=(neurons, 3)) * 300,
            "has_behavior": "behavior" not in lacking,
            "has_pupil_center": "pupil_center" not in lacking,
            "normalisation": Normalisation(
                **{name: None if name in lacking else value for name, value in maps.items()},
                frames=frames,
            ),
            "frame_shape": frame_shape,
        }
        return AnimalFacts(**{**facts, **others})

    return make


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    """A batch of random raw clips of one animal (or of the animals listed)."""

    def make(
        animals: str | tuple[str, ...] = "A",
        *,
        clips: int = 2,
        frames: int = 9,
        neurons: int = 5,
        frame_shape: tuple[int, int] = (12, 15),
        first_frames: tuple[int, ...] | None = None,
        lacking: tuple[str, ...] = (),
        seed: int = 1,
    ) -> Clip:
        if isinstance(animals, str):
            animals = (animals,) * clips
        clips = len(animals)
        random = np.random.default_rng(seed)
        starts = np.array(first_frames if first_frames is not None else range(clips))
        values = {
            "behavior": random.uniform(0, 3, (clips, frames, 2)).astype(np.float32),
            "pupil_center": random.normal(size=(clips, frames, 2)).astype(np.float32),
            "responses": random.gamma(1, 1, (clips, frames, neurons)).astype(np.float32),
        }
        return Clip(
            video=random.integers(0, 256, (clips, 1, frames, *frame_shape)).astype(np.uint8),
            **{name: None if name in lacking else value for name, value in values.items()},
            animal=animals,
            trial=np.arange(clips),
            frame=starts[:, None] + np.arange(frames),
            valid=np.ones((clips, frames), dtype=bool),
        )

    return make


class StoredRecording:
    """Stands for a recording store: statistics and the facts that a network needs."""

    neurons, frame_shape = 5, (12, 15)
    modalities = ("video", "responses", "behavior", "pupil_center")

    def __init__(self, path: Path) -> None:
        self.animal, self.digest = path.stem, f"digest of {path.stem}"
        self.coordinates = np.random.default_rng(len(self.animal)).normal(size=(5, 3))

    def __enter__(self) -> "StoredRecording":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def statistics(self, source: str, modality: str, *, per_frame: bool) -> Statistics:
        shape = {"video": self.frame_shape, "responses": (5,)}.get(modality, (2,))
        shape = (30, *shape) if per_frame else shape
        random = np.random.default_rng(len(modality))
        mean, std = random.normal(size=shape), random.uniform(0.5, 2, shape)
        return Statistics(mean=mean, std=std, min=mean - 1, max=mean + 1)


@pytest.fixture
def stored_recording() -> type[StoredRecording]:
    """What takes the place of `Recording`."""
    return StoredRecording
