"""From a system's file to a network.

`check` tries a system out, so that a setting that cannot work ends in a sentence before any job
starts. Trained networks on disk: `members`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from sensorium_models.configuration import ConfigurationError
from sensorium_models.networks.construction import construct, resolved
from sensorium_models.networks.encoder import AnimalFacts, Encoder
from sensorium_models.networks.inputs import CHANNELS_OF, AnimalInputs, padded_shape
from sensorium_models.networks.outputs import OUTPUTS, Output
from sensorium_models.recordings.frame_shape import frame_shape_of
from sensorium_models.recordings.normalisation import (
    Affine,
    Normalisation,
    normalisation,
    score_precision,
)
from sensorium_models.recordings.store import Recording
from sensorium_models.study import Study
from sensorium_models.systems import System


def check(
    system: System,
    *,
    frame_shape: tuple[int, int],
    file: str,
    first_scored_frame: int | None = None,
) -> None:
    """Build the parts of a system and run the shape of one clip through them, without memory.

    Raises:
        ConfigurationError: names `file`, the key, and what is allowed.
    """
    facts = _facts_without_data(frame_shape)
    clip_frames = system.recipe.clip_frames
    planes, state_channels = _widths(system, {facts.animal: facts})
    # Made on the CPU and moved: drawing numbers on the meta device imports PyTorch's compiler.
    with torch.random.fork_rng(devices=[]):
        core: Any = build_core(system, {facts.animal: facts}, where=file)
        readout = _readout(system, core, facts, state_channels, file)
        shifter = _shifter(system, file)
        _output(system, file)
    if shifter is not None and not getattr(readout, "takes_shift", True):
        raise ConfigurationError(
            f"{file}: shifter: {system.readout} has no positions to shift; remove shifter, or "
            "set another readout"
        )
    history = core.history_frames + getattr(readout, "history_frames", 0)
    if clip_frames <= history:
        raise ConfigurationError(
            f"{file}: recipe.clip_frames: {clip_frames} frames are no longer than the history "
            f"of {history} frames that the network needs, so nothing could be predicted; use "
            f"at least {history + 1}"
        )
    if first_scored_frame is not None and history > first_scored_frame:
        raise ConfigurationError(
            f"{file}: core_settings: the network needs a history of {history} frames, but "
            f"scored_frames.first is {first_scored_frame}; shorten the one or raise the other"
        )
    only = getattr(core, "clip_frames", None)
    if only is not None and clip_frames != only:
        raise ConfigurationError(
            f"{file}: recipe.clip_frames: {system.core} serves clips of {only} frames only, not "
            f"{clip_frames}; set clip_frames to {only}"
        )
    if system.inputs.state and not (_takes_state(core) or _takes_state(readout)):
        raise ConfigurationError(
            f"{file}: inputs.state: neither {system.core} nor {system.readout} takes the "
            "behavioural state as a sequence; remove state, or name these modalities in channels"
        )
    validation = system.recipe.validation
    if validation.frames == "clips" and validation.skip_frames >= clip_frames - 1:
        raise ConfigurationError(
            f"{file}: recipe.validation.skip_frames: skipping {validation.skip_frames} of "
            f"{clip_frames} frames of a clip leaves fewer than two to correlate; use at most "
            f"{clip_frames - 2}"
        )
    for part in (core, readout, shifter):
        if part is not None:
            part.to("meta")
    expected = (2, clip_frames - history, facts.neurons)
    padded = padded_shape(frame_shape, system.inputs.frame_padding)
    inputs = torch.empty(2, planes, clip_frames, *padded, device="meta")
    state = torch.empty(2, clip_frames, state_channels, device="meta")
    pupil_center = torch.empty(2, expected[1], 2, device="meta")
    try:
        features = core(inputs, state) if _takes_state(core) else core(inputs)
        shift = shifter(pupil_center) if shifter is not None else None
        late = (state[:, -expected[1] :],) if _takes_state(readout) else ()
        shape = tuple(readout(features, shift, *late).shape)
    except Exception as error:
        raise ConfigurationError(
            f"{file}: core, readout and shifter do not fit together: a clip of {clip_frames} "
            f"frames of {frame_shape[0]} x {frame_shape[1]} pixels fails with: {error}"
        ) from error
    if shape != expected:
        raise ConfigurationError(
            f"{file}: core and readout promise predictions of shape {expected} (clips, clip_frames "
            f"- history_frames, neurons) but give {shape}; correct history_frames of the classes"
        )


def check_study(study: Study) -> None:
    """`check` every system of a study, for the frames of its recordings as far as they are known.

    Raises:
        ConfigurationError: names the system's file, the key, and what is allowed.
    """
    for animal in study.settings.animals:
        if hasattr(nn.ModuleDict, animal):
            raise ConfigurationError(f"animals: {animal} is a reserved word; use another name")
    frame_shape = frame_shape_of(study)
    for name, system in study.systems.items():
        check(
            system,
            frame_shape=frame_shape,
            file=str(study.system_file(name)),
            first_scored_frame=study.settings.scored_frames.first,
        )


def build_encoder(system: System, facts: Mapping[str, AnimalFacts], *, seed: int) -> Encoder:
    """The untrained network of a system for these animals; the same for the same seed.

    Seeds torch's global generators, then draws core, readouts in the order of `facts`, shifters (a
    core may leave a part of itself until after the readouts, see `Core.draw_after_readouts`). A
    modality that no animal has is left out: fewer input channels, no shifter.

    Raises:
        ConfigurationError: a setting or a modality is missing or invalid.
    """
    for animal in facts:
        if hasattr(nn.ModuleDict, animal):
            raise ConfigurationError(f"animal {animal}: this name is reserved; use another one")
    where = f"system {system.name}"
    torch.manual_seed(seed)
    core: Any = build_core(system, facts)
    _, state_channels = _widths(system, facts)
    readouts = {
        animal: _readout(system, core, known, state_channels, where)
        for animal, known in facts.items()
    }
    getattr(core, "draw_after_readouts", lambda: None)()
    shifters = None
    if system.shifter is not None and _present("pupil_center", facts, system):
        shifters = {animal: cast(nn.Module, _shifter(system, where)) for animal in facts}
    output = _output(system, where)
    for animal, readout in readouts.items():
        rates = facts[animal].initial_rates
        bias = getattr(readout, "bias", None)
        if rates is not None and isinstance(bias, nn.Parameter):
            start = torch.tensor(np.asarray(rates), dtype=torch.float32)
            if start.shape != bias.shape or not bool(torch.isfinite(start).all()):
                raise ValueError(
                    f"animal {animal}: initial rates must be finite, one for each of "
                    f"{facts[animal].neurons} neurons"
                )
            with torch.no_grad():
                bias.copy_(output.initial_bias(start))
    return Encoder(
        core=core,
        readouts=readouts,
        shifters=shifters,
        inputs={
            animal: AnimalInputs(
                animal=animal,
                normalisation=known.normalisation,
                channels=input_channels(system, facts),
                state=input_state(system, facts),
                frame_padding=system.inputs.frame_padding,
            )
            for animal, known in facts.items()
        },
        output=output,
    )


def build_core(
    system: System, facts: Mapping[str, AnimalFacts], *, where: str | None = None
) -> nn.Module:
    """The core alone, drawn from torch's generator as it is; `build_encoder` begins with it.

    `where` begins the sentence of an error; the system's name unless given.

    Raises:
        ConfigurationError: no animal, frames of several sizes, or a setting that cannot work.
    """
    where = f"system {system.name}" if where is None else where
    if not facts:
        raise ConfigurationError(f"{where}: there is no animal to build a readout for")
    shapes = {animal.frame_shape for animal in facts.values()}
    if len(shapes) > 1:
        raise ConfigurationError(
            f"{where}: one core cannot serve frames of different sizes: "
            + ", ".join(
                f"{a.animal} {a.frame_shape[0]} x {a.frame_shape[1]}" for a in facts.values()
            )
        )
    try:
        frame_shape = padded_shape(shapes.pop(), system.inputs.frame_padding)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    planes, state_channels = _widths(system, facts)
    given: dict[str, Any] = {"in_channels": planes, "frame_shape": frame_shape}
    if _takes_state(resolved("core", system.core, where)):
        given["state_channels"] = state_channels
    core = construct(system.core, "core", system.core_settings, given, where)
    for name in ("out_channels", "out_shape", "history_frames", "regularizer"):
        if not hasattr(core, name):
            raise ConfigurationError(f"{where}: core: {system.core} lacks the attribute {name}")
    return core


def input_channels(system: System, facts: Mapping[str, AnimalFacts]) -> tuple[str, ...]:
    """The modalities that enter the core, in order: those of the system that the animals have."""
    return tuple(name for name in system.inputs.channels if _present(name, facts, system))


def input_state(system: System, facts: Mapping[str, AnimalFacts]) -> tuple[str, ...]:
    """The modalities of the behavioural state, in order: those of the system that the animals have.

    They reach a core or readout that takes them as a sequence of two numbers each per frame.
    """
    return tuple(name for name in system.inputs.state if _present(name, facts, system))


def animal_facts(
    recording: Recording,
    system: System,
    *,
    initial_rates: np.ndarray | None = None,
    initial_positions: np.ndarray | None = None,
) -> AnimalFacts:
    """What a network of `system` needs to know of a recording (see AnimalFacts)."""
    scheme = normalisation(system.inputs.normalisation, recording)
    precision = np.asarray(score_precision(system.response_unit, recording), dtype=np.float32)
    responses = Affine(offset=np.zeros_like(precision), scale=precision)
    return AnimalFacts(
        animal=recording.animal,
        neurons=recording.neurons,
        coordinates=recording.coordinates,
        has_behavior="behavior" in recording.modalities,
        has_pupil_center="pupil_center" in recording.modalities,
        normalisation=replace(scheme, responses=responses),
        frame_shape=recording.frame_shape,
        initial_rates=initial_rates,
        initial_positions=initial_positions,
    )


def _present(modality: str, facts: Mapping[str, AnimalFacts], system: System) -> bool:
    if modality == "video":
        return True
    lacking = [animal for animal, known in facts.items() if not getattr(known, f"has_{modality}")]
    if lacking and len(lacking) < len(facts):
        raise ConfigurationError(
            f"system {system.name}: {modality} is missing in animal {', '.join(lacking)} but not "
            f"in the others; leave {modality} out of the system (inputs.channels, shifter) or "
            "leave these animals out of the study"
        )
    return not lacking


def _widths(system: System, facts: Mapping[str, AnimalFacts]) -> tuple[int, int]:
    """Planes that enter the core, and numbers per frame of the behavioural state."""
    planes = sum(CHANNELS_OF[name] for name in input_channels(system, facts))
    return planes, sum(CHANNELS_OF[name] for name in input_state(system, facts))


def _takes_state(part: object) -> bool:
    return bool(getattr(part, "takes_state", False))


def _readout(
    system: System, core: Any, facts: AnimalFacts, state_channels: int, where: str
) -> nn.Module:
    given = {"facts": facts, "in_channels": core.out_channels, "in_shape": tuple(core.out_shape)}
    if _takes_state(resolved("readout", system.readout, where)):
        given["state_channels"] = state_channels
    readout = construct(system.readout, "readout", system.readout_settings, given, where)
    if not hasattr(readout, "regularizer"):
        raise ConfigurationError(
            f"{where}: readout: {system.readout} lacks the attribute regularizer"
        )
    return readout


def _output(system: System, where: str) -> Output:
    chosen = OUTPUTS[system.output]
    path = f"{chosen.__module__}:{chosen.__name__}"
    return cast(Output, construct(path, "output", system.output_settings, {}, where))


def _shifter(system: System, where: str) -> nn.Module | None:
    if system.shifter is None:
        return None
    return construct(system.shifter, "shifter", system.shifter_settings, {}, where)


def _facts_without_data(frame_shape: tuple[int, int]) -> AnimalFacts:
    neurons = 3
    identity = Affine(offset=np.zeros((1, 1), np.float32), scale=np.ones((1, 1), np.float32))
    return AnimalFacts(
        animal="any",
        neurons=neurons,
        coordinates=np.zeros((neurons, 3)),
        has_behavior=True,
        has_pupil_center=True,
        normalisation=Normalisation(
            video=identity,
            behavior=identity,
            pupil_center=identity,
            responses=identity,
            frames=None,
        ),
        frame_shape=frame_shape,
        initial_positions=np.zeros((neurons, 2)),
    )
