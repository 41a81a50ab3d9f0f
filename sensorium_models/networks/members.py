"""A trained network on disk: weights saved beside the record, and both read back together.

A member is only brought back to the recordings that it was trained on, because its readouts and
normalisation are theirs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sensorium_models import files, finished
from sensorium_models.networks.build import animal_facts, build_encoder
from sensorium_models.networks.encoder import Encoder
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System


def save_weights(path: Path, encoder: Encoder) -> None:
    """Write all weights and batch-norm statistics as safetensors, atomically."""
    # Copies, because safetensors refuses weights that share memory (a core may tie some).
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in encoder.state_dict().items()
    }
    with files.replacing(path) as temporary:
        save_file(tensors, temporary)


def load_encoder(folder: Path, recordings: Mapping[str, Path]) -> Encoder:
    """The trained network in a member's folder, in evaluation mode on the CPU.

    It gets a readout for those of its animals that are in `recordings` (animal to recording store).

    Raises:
        ValueError: the folder is incomplete, a recording is not the one that the member was trained
            on, or the weights do not fit the system in the record.
    """
    folder = Path(folder)
    record = read_record(folder)
    system = System.model_validate(record["system"])
    animals = [animal for animal in record["animals"] if animal in recordings]
    if not animals:
        raise ValueError(
            f"{folder}: this member knows animals {', '.join(record['animals'])}, none of which is "
            f"among the recordings given ({', '.join(recordings) or 'none'})"
        )
    adopted = (finished.read_adopted(folder) or {}).get("recordings", {})
    facts = {}
    for animal in animals:
        with Recording(recordings[animal]) as recording:
            trained_with = record["recordings"][animal]
            if recording.digest not in (trained_with, adopted.get(animal)):
                raise ValueError(
                    f"{folder}: this member was trained on another recording of animal {animal} "
                    f"(digest {trained_with[:12]}) than {recordings[animal]} holds (digest "
                    f"{recording.digest[:12]}); bring that one back, or say --config "
                    "replace_members=true to train again or adopt_members=true to use it as it is"
                )
            # What only starts a training is overwritten by the weights.
            facts[animal] = animal_facts(
                recording, system, initial_positions=np.zeros((recording.neurons, 2))
            )
    with torch.random.fork_rng():
        encoder = build_encoder(system, facts, seed=0)
    _load_weights(encoder, folder / "weights.safetensors", set(record["animals"]) - set(animals))
    return encoder.eval()


def read_record(folder: Path) -> dict[str, Any]:
    """The record `run.json` of a finished member.

    Raises:
        ValueError: it is missing, unreadable or incomplete.
    """
    path = Path(folder) / "run.json"
    record = finished.read_record(Path(folder))
    if record is None:
        raise ValueError(f"{path} does not exist; is this the folder of a finished member?")
    lacking = [key for key in ("system", "animals", "recordings") if key not in record]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}; train the member again")
    return record


def _load_weights(encoder: Encoder, path: Path, left_out: set[str]) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}); train the member again") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    found = {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if not (name.startswith(("readouts.", "shifters.")) and name.split(".")[1] in left_out)
    }
    problems = [f"lacks {name}" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"has an unknown {name}" for name in sorted(found.keys() - wanted.keys())]
    problems += [
        f"has {name} of shape {found[name]} instead of {wanted[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]
    if problems:
        raise ValueError(f"{path} does not fit the system in run.json: it {'; it '.join(problems)}")
    encoder.load_state_dict({name: tensors[name] for name in found})
