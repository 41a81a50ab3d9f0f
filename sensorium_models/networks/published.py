"""Checkpoints of the original repositories: read into our networks, and written back.

Nothing is unpickled (`weights_only`), every name and shape is checked, and what does not fit is
named. The names are in `published_names`.
"""

import pickle
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sensorium_models import files
from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.published_names import naming_of
from sensorium_models.networks.published_names.naming import Naming

# Entries of a checkpoint that hold the tensors, beside those of optimisers and schedules.
_CONTAINERS = ("nn_state_dict", "model", "state_dict", "model_state_dict")
# How far neurons may lie from where the checkpoint has them, in units of the field of view.
_SAME_PLACE = 1e-4
_SHOWN_PROBLEMS = 12


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint: its name and shape, and which of ours (or row of ours) it is."""

    theirs: str
    shape: tuple[int, ...]
    ours: str
    row: int | None
    animal: str | None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors in a checkpoint by name, without wrappers' prefixes; no code of it is run.

    Wrappers are data-parallel training (`module.`) and compilation (`_orig_mod.`).

    Raises:
        ValueError: it cannot be read as data only, or holds no tensors.
    """
    path = Path(path)
    try:
        with _numpy_scalars():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a checkpoint of tensors ({reason}); download it again, or "
            "save its state dict alone with torch.save"
        ) from error
    for name in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds {type(content).__name__}, not tensors by name")
    strange = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(
            f"{path}: {', '.join(strange[:3])} hold no tensor, so this is no state dict; known "
            f"containers of one are {', '.join(_CONTAINERS)}"
        )
    tensors = {str(name).replace("_orig_mod.", ""): value for name, value in content.items()}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def load_published(
    encoder: Encoder, tensors: Mapping[str, Tensor], *, folders: Mapping[str, str], where: str
) -> None:
    """Give `encoder` the weights of a checkpoint; readouts of other animals are left out.

    Args:
        tensors: as `read_checkpoint` gives them.
        folders: folder of the recording of each animal of the encoder, which tells its key.
        where: begins the sentence of an error; the path, say.

    Raises:
        ValueError: tensors are missing, unknown, of another shape or not finite, or the neurons of
            an animal are not those of the checkpoint. Nothing is changed then.
    """
    naming = naming_of(encoder)
    entries = _entries(encoder, naming, folders)
    inert = naming.inert(encoder)
    others = _of_other_animals(entries, tensors, naming, folders)
    wanted = {entry.theirs: entry for entry in entries}
    problems = [f"lacks {name}" for name in wanted if name not in tensors]
    for name, tensor in tensors.items():
        if name in others or any(fnmatch(name, pattern) for pattern in naming.ignored):
            continue
        if name not in wanted and name not in inert:
            problems.append(f"has an unknown {name}")
            continue
        shape = wanted[name].shape if name in wanted else tuple(inert[name].shape)
        if tuple(tensor.shape) != shape:
            problems.append(f"has {name} of shape {tuple(tensor.shape)} instead of {shape}")
        elif name in wanted and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            problems.append(f"has {name} with values that are not finite")
    if problems:
        shown = problems[:_SHOWN_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"has {len(problems) - len(shown)} more such faults")
        raise ValueError(f"{where} does not fit the network: it {'; it '.join(shown)}")
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    for entry in entries:
        ours = state[entry.ours] if entry.row is None else state[entry.ours][entry.row]
        given = tensors[entry.theirs].reshape(ours.shape)
        if entry.ours.endswith(".source_grid"):
            _check_neurons(given, ours, cast(str, entry.animal), where)
        ours.copy_(given)
    encoder.load_state_dict(state)


def published_tensors(encoder: Encoder, *, folders: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights of `encoder` as the original repository names and shapes them."""
    naming = naming_of(encoder)
    state = encoder.state_dict()
    tensors = {}
    for entry in _entries(encoder, naming, folders):
        ours = state[entry.ours] if entry.row is None else state[entry.ours][entry.row]
        tensors[entry.theirs] = ours.detach().to("cpu", copy=True).reshape(entry.shape)
    for name, constant in naming.inert(encoder).items():
        tensors[name] = constant.detach().to("cpu", copy=True)
    return tensors


def write_checkpoint(path: Path, encoder: Encoder, *, folders: Mapping[str, str]) -> None:
    """Write the weights as a checkpoint that the original repository's code reads, atomically."""
    content: Any = published_tensors(encoder, folders=folders)
    container = naming_of(encoder).container
    if container is not None:
        content = {container: content}
    with files.replacing(path) as temporary:
        torch.save(content, temporary)


def _entries(encoder: Encoder, naming: Naming, folders: Mapping[str, str]) -> list[Entry]:
    keys = {animal: naming.key(folders[animal]) for animal in encoder.animals}
    entries = []
    for name, tensor in encoder.state_dict().items():
        matches = ((rule, re.fullmatch(rule.ours, name)) for rule in naming.rules)
        rule, match = next((pair for pair in matches if pair[1]), (None, None))
        if rule is None or match is None:
            raise ValueError(f"our tensor {name} has no published name; the naming is incomplete")
        groups = match.groupdict()
        animal = groups.get("animal")
        if animal is not None:
            groups["animal"] = keys[animal]
        for row in range(len(tensor)) if rule.rows else [None]:
            theirs = rule.name({**groups, "row": str(row)})
            shape = tuple(tensor.shape if row is None else tensor.shape[1:])
            entries.append(Entry(theirs, rule.shape(shape), name, row, animal))
    return entries


def _of_other_animals(
    entries: list[Entry],
    tensors: Mapping[str, Tensor],
    naming: Naming,
    folders: Mapping[str, str],
) -> set[str]:
    """Names that our animals' tensors would have with the keys of others."""
    keys = {naming.key(folder) for folder in folders.values()}
    patterns = {
        re.escape(entry.theirs).replace(
            re.escape(f".{naming.key(folders[entry.animal])}."), r"\.([^.]+)\.", 1
        )
        for entry in entries
        if entry.animal is not None
    }
    matches = [(name, re.fullmatch(pattern, name)) for pattern in patterns for name in tensors]
    return {name for name, match in matches if match and match[1] not in keys}


def _check_neurons(given: Tensor, ours: Tensor, animal: str, where: str) -> None:
    apart = float((given.float() - ours).abs().max())
    if apart > _SAME_PLACE:
        raise ValueError(
            f"{where}: the neurons of animal {animal} are not those of the recording (they lie up "
            f"to {apart:.2g} of the field of view apart); use the recording that the published "
            "network was trained on"
        )


def _numpy_scalars() -> Any:
    """Lets a checkpoint hold numbers of numpy, as logs of a training do: they run no code."""
    scalar = getattr(getattr(np, "_core", None), "multiarray", None)
    if scalar is None:
        return nullcontext()
    kinds = [np.float64, np.float32, np.int64, np.bool_]
    allowed = [scalar.scalar, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
    return torch.serialization.safe_globals(allowed)
