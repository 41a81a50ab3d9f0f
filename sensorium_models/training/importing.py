"""Members that others trained: a published checkpoint becomes a member like any other.

Its split says what its authors trained on, as the system's training set describes it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sensorium_models import files
from sensorium_models.networks.build import animal_facts, build_encoder
from sensorium_models.networks.members import save_weights
from sensorium_models.networks.published import load_published, read_checkpoint
from sensorium_models.provenance import environment
from sensorium_models.recordings.splits import trial_digests
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System
from sensorium_models.training.feeding import keep_learned
from sensorium_models.training.records import write_history


def import_member(
    *,
    system: System,
    member: str,
    axes: Mapping[str, int | str],
    training_set: str,
    checkpoint: Path,
    recordings: Mapping[str, Path],
    folders: Mapping[str, str],
    splits: pd.DataFrame,
    output: Path,
    record: Mapping[str, Any],
) -> None:
    """Write a published checkpoint as a member: weights, split, history and record.

    The history has no epoch: it is not known.

    Args:
        system: architecture and inputs, of which the recipe does not matter.
        checkpoint: file of the original repository (see `networks.published`).
        recordings: recording store of each animal of the training set.
        folders: name of each recording's folder, which tells its key in the checkpoint.
        record: more to store in `run.json`.

    Raises:
        ValueError: the checkpoint cannot be read or does not fit; the message names every tensor.
    """
    system = system.of_member(axes)
    facts, digests = {}, {}
    for animal, path in recordings.items():
        with Recording(path) as recording:
            digests[animal] = recording.digest
            # What only starts a training is overwritten by the weights.
            start = np.zeros((recording.neurons, 2))
            facts[animal] = animal_facts(recording, system, initial_positions=start)
    with torch.random.fork_rng():
        encoder = build_encoder(system, facts, seed=0)
    tensors = read_checkpoint(checkpoint)
    load_published(encoder, tensors, folders=folders, where=str(checkpoint))
    save_weights(output / "weights.safetensors", encoder)
    keep_learned(output, splits, member)
    write_history(output / "history.csv", [])
    content = {
        **record,
        "system": system.model_dump(mode="json"),
        "member": member,
        "axes": dict(axes),
        "training_set": training_set,
        "animals": list(recordings),
        "trials": trial_digests(splits, member),
        "recordings": digests,
        "imported_from": {"path": str(checkpoint), "sha256": files.sha256(checkpoint)},
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "environment": environment(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # Last, because its presence says that the member is complete.
    files.write_json(output / "run.json", content)
