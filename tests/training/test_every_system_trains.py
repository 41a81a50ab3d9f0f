"""Every file in config/systems, tiny, through the real training: its own network, recipe and
precision learn from the simulated recordings.

A new system needs no line here, unless it is too large to be trained in seconds (`TINY`).
"""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sensorium_models.configuration import Origin, merged
from sensorium_models.systems import SYSTEMS_FOLDER, System, load_system
from tests import tiny

pytestmark = pytest.mark.slow

SYSTEMS = sorted(file.stem for file in SYSTEMS_FOLDER.glob("*.yaml"))

# Widths, frames and rates; everything else, as the kind of schedule, is that of the file.
_FAST_TRANSFORMER = {"learning_rate": 0.015, "parts": {"core": {"learning_rate": 0.02}}}
TINY: dict[str, dict[str, Any]] = {
    "factorized_baseline": {
        "core_settings": {
            "channels": [4, 6],
            "spatial_kernels": [3, 3],
            "temporal_kernels": [2, 2],
            "spatial_strides": [1, 1],
        },
        "recipe": {"optimizer": {"learning_rate": 0.02}},
    },
    "gru_baseline": {
        "core_settings": {
            "features": 2,
            "rotation_steps": 4,
            "kernels": [3, 3],
            "gru_input_kernel": 3,
            "gru_hidden_kernel": 3,
            "group_sparsity": 0.0,
            "smoothness": 0.0,
        },
        "recipe": {"optimizer": {"learning_rate": 0.02}, "schedule": {"max_epochs": 5}},
    },
    "linear_nonlinear": {
        "readout_settings": {"history_frames": 2},
        "recipe": {"optimizer": {"learning_rate": 0.02}, "schedule": {"max_epochs": 2}},
    },
    "dwiseneuro": {
        "inputs": {"frame_padding": [16, 16]},
        "core_settings": {
            "channels": [8, 8],
            "strides": [2, 1],
            "expansion": 2,
            "cortex_channels": [16, 16, 32],
            "drop_path": 0.0,
            "cortex_drop_path": 0.0,
        },
        "readout_settings": {"dropout": 0.0},
        "output_settings": {"beta": 1.0},
        "recipe": {
            "clip_frames": 6,
            "frame_step": 1,
            "clips_per_batch": 6,
            "samples_per_epoch": 144,
            "optimizer": {"learning_rate": 0.02},
            "schedule": {"max_epochs": 3, "warm_up_epochs": 1},
            "moving_average": {"decay": 0.7},
            "validation": {"skip_frames": 2},
        },
    },
    "dynamic_v1fm": {
        "core_settings": {
            "clip_frames": 16,
            "window": [4, 3, 3],
            "embedding": 8,
            "heads": 2,
            "blocks": 1,
            "mlp_hidden": 6,
        },
        "readout_settings": {"sigma_range": 0.1},
        "recipe": {
            "optimizer": {"learning_rate": 0.02},
            "schedule": {"max_epochs": 4, "warm_up_steps": 4, "constant_epochs": 3},
        },
    },
    "viv1t": {
        "core_settings": {**tiny.ATTENTION, "patch_frames": 3},
        "recipe": {"loss": {"correlation_weight": 10.0}, "optimizer": _FAST_TRANSFORMER},
    },
    "viv1t_2025": {
        "core_settings": {**tiny.ATTENTION, "patch_frames": 3, "registers": 2},
        "recipe": {
            "clip_frames": 30,
            "optimizer": _FAST_TRANSFORMER,
            "schedule": {"warm_up_steps": 4},
            "clipping": {"quantile": 0.9},
            "compile": False,
        },
    },
}
SHORT: dict[str, Any] = {
    "inputs": {"normalisation": "global_train"},
    "response_unit": "per_neuron_train",
    "recipe": {
        "clip_frames": 16,
        "clips_per_batch": 4,
        "schedule": {"max_epochs": 2},
        "validation": {"skip_frames": 8},
    },
}


def tiny_system(name: str) -> System:
    shipped = load_system(name, folders=[], members={}, origin=Origin([], {}))
    content = merged(shipped.model_dump(mode="json"), SHORT)
    return System.model_validate(merged(content, TINY.get(name, {})))


@pytest.fixture(scope="module")
def blinking(make_laboratory: Any, tmp_path_factory: Any) -> Any:
    """Most of the video is one brightness that lasts: Dynamic-V1FM sees every other frame."""
    return make_laboratory(tmp_path_factory.mktemp("blinking"), flicker=0.8, held=10)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_tiny_version_trains_and_beats_its_start(
    blinking: Any, train: Any, tmp_path: Path, name: str
) -> None:
    system = tiny_system(name)
    axes = next(iter(system.member_axes().values()))
    member = train(blinking, tmp_path, system, axes={**axes, "seed": 3})
    with (member / "history.csv").open() as file:
        course = [float(row["objective"]) for row in csv.DictReader(file)]
    # Even a random network may follow the brightness. It is the same for all neurons, and takes one
    # or two values in what counts of each of 11 trials: by chance 0 with a standard error of 0.25.
    assert max(course[1:]) > max(course[0] + 0.05, 0.4)
    record = json.loads((member / "run.json").read_text())
    assert record["system"]["recipe"]["precision"] == system.recipe.precision
    weights = load_file(member / "weights.safetensors")
    assert all(values.isfinite().all() for values in weights.values())
