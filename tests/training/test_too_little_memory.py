"""Memory that is too small, wherever that is found out, ends in what to set."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium_models import inference
from sensorium_models.training import state
from sensorium_models.training.feeding import TrainingError
from sensorium_models.training.validation import ClipObjective

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
CUDNN = RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")


@pytest.mark.parametrize(
    ("recipe", "place", "name", "error", "sentence"),
    [
        (
            "factorized_baseline",
            torch.optim.AdamW,
            "step",
            CUBLAS,
            r"for what this training holds\. .* set smaller core_settings, or use a device",
        ),
        (
            "dwiseneuro",
            state,
            "MovingAverage",
            GPU,
            r"core_settings, or leave out recipe\.moving_average \(a copy of the weights\)",
        ),
        (
            "factorized_baseline",
            ClipObjective,
            "pairs",
            CUDNN,
            r"to judge the network\. Set recipe: \{clips_per_batch: 2\} \(it is 4\)",
        ),
        (
            "viv1t",
            inference,
            "predict_trial",
            CPU,
            r"to judge the network\. Set prediction_chunk_frames: 25 \(it is 50\)",
        ),
        (
            "factorized_baseline",
            inference,
            "predict_trial",
            MemoryError(),
            r"to compare the member with others\. Set prediction_chunk_frames: 25 \(it is 50\)",
        ),
    ],
    ids=["first step", "average", "clips", "whole trials", "comparison"],
)
def test_every_place_names_a_smaller_setting(
    laboratory: Any,
    of_recipe: Any,
    train: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    place: Any,
    name: str,
    error: Exception,
    sentence: str,
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> Any:
        raise error

    monkeypatch.setattr(place, name, fail)
    system = of_recipe(recipe, schedule={"max_epochs": 2})
    with pytest.raises(TrainingError, match=r"^Memory is too small .*" + sentence):
        train(laboratory, tmp_path, system)
