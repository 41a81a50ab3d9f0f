"""What decides a result: the resolved configuration and the sources behind each stage.

Snakemake sees neither edits in an imported package nor values inside a system's file, so rules
carry these fingerprints in `params`. Comments, docstrings and formatting leave them as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sensorium_models.source_code import PACKAGE, SCRIPTS, meanings
from sensorium_models.study import Study

# Where a published archive is fetched from; its repository and commit say what it is.
_PLACES = {"server", "mirrors"}


def digest(content: Any) -> str:
    """A short stable hash of JSON-like content."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_digest(*modules: str, script: str | None = None) -> str:
    """Hash of what `modules` and everything of this project that they import would execute.

    Args:
        script: name of a rule's script in `workflow_scripts/`, whose imports count as well.
    """
    file = None if script is None else SCRIPTS / f"{script}.py"
    return digest(meanings(*modules, script=file))


def preprocess(study: Study, animal: str) -> str:
    """What decides a recording store."""
    recording = study.recording(animal)
    return digest(
        {
            # Another archive shows in its receipt; here only how one is read.
            "recording": recording.model_dump(mode="json", exclude={"source"}),
            "native": recording.source.kind == "native",
            "resampling": recording.source.model_dump(mode="json").get("resampling"),
            "tiers": study.settings.tiers,
            "frame_rate_hz": study.settings.frame_rate_hz,
            "sources": source_digest(script="preprocess"),
        }
    )


def simulation(study: Study, animal: str) -> str:
    """What decides a simulated archive."""
    return digest(
        {
            "recording": study.recording(animal).model_dump(mode="json"),
            "sources": source_digest(script="simulate"),
        }
    )


def videos() -> str:
    """What decides the table of videos, given the stores."""
    return digest({"sources": source_digest(script="videos")})


def split(study: Study, training_set: str, system: str, name: str) -> str:
    """What decides the split of one member: another member changes nothing in it."""
    return digest(
        {
            **_learned(study, training_set, system),
            "teacher": study.teacher(system, name),
            "test": study.tested_tiers(training_set, system),
            "sources": source_digest(script="split"),
        }
    )


def member(study: Study, training_set: str, system: str, name: str) -> dict[str, Any]:
    """What decides a trained member: a change here means another network."""
    axes = study.member_axes(system)[name]
    published = study.published_weights(training_set, system, name)
    if published is not None:
        # How the recipe would train it does not matter.
        architecture = study.systems[system].of_member(axes).trained_by()
        architecture.pop("recipe")
        return {
            "system": architecture,
            "axes": axes,
            **_learned(study, training_set, system),
            "published_weights": str(published),
            "sources": source_digest(script="import_member"),
        }
    teacher = study.teacher(system, name)
    return {
        "system": study.systems[system].of_member(axes).trained_by(),
        "axes": axes,
        "teacher": None if teacher is None else member(study, training_set, system, teacher),
        **_learned(study, training_set, system),
        "scored_frames": study.settings.scored_frames.model_dump(mode="json"),
        "sources": source_digest("sensorium_models.training.loop", *_classes(study, system)),
    }


def prediction(study: Study, protocol: str, system: str) -> str:
    """What decides predictions and moments, given the member."""
    return digest(
        {
            **_learned(study, study.training_set_of(system, protocol), system),
            "tiers": study.protocol(protocol).tiers,
            "animals": study.predicted_animals(protocol),
            "scored_frames": study.settings.scored_frames.model_dump(mode="json"),
            "score_unit": study.settings.score_unit,
            "further_units": study.further_units(protocol),
            "sources": source_digest(*_classes(study, system), script="predict"),
        }
    )


def ensemble(study: Study, protocol: str, system: str) -> str:
    """What decides an ensemble, given its members' predictions."""
    joint = study.settings.ensembles.get(system)
    return digest(
        {
            "members": study.averaged_members(system),
            "joint": None if joint is None else joint.model_dump(exclude={"title"}),
            "score_unit": study.settings.score_unit,
            "further_units": study.further_units(protocol),
            "sources": source_digest(script="ensemble"),
        }
    )


def scores(study: Study) -> str:
    """What decides scores, given the moments and ceilings."""
    return digest(
        {
            "reliable": study.settings.reliable_explainable_variance,
            "sources": [source_digest(script=name) for name in ("evaluate", "evaluate_in_unit")],
        }
    )


def uncertainty(study: Study) -> str:
    """What decides intervals and comparisons, given the moments."""
    systems = [*study.settings.systems, *study.settings.ensembles]
    return digest({"systems": systems, "sources": source_digest(script="uncertainty")})


def ceilings(study: Study, protocol: str) -> str:
    """What decides the repeat statistics of a protocol's recordings."""
    return digest(_scored(study, protocol) | {"sources": source_digest(script="ceilings")})


def submission(study: Study, protocol: str) -> str:
    """What decides an upload, given the ensemble's predictions."""
    folders = {a: study.recording(a).folder for a in study.predicted_animals(protocol)}
    sources = source_digest(script="submit")
    return digest(_scored(study, protocol) | {"folders": folders, "sources": sources})


def emulated_server(study: Study, protocol: str) -> str:
    """What decides the emulated server's scores of an upload."""
    folders = {a: study.recording(a).folder for a in study.predicted_animals(protocol)}
    sources = source_digest(script="emulate_server")
    return digest(_scored(study, protocol) | {"folders": folders, "sources": sources})


def achievable(study: Study, protocol: str) -> str:
    """What decides the scores of the true rates."""
    return digest(_scored(study, protocol) | {"sources": source_digest(script="achievable")})


def quality(study: Study, animal: str) -> str:
    """What decides a quality sheet: not all of the reporting, since it reads a whole recording."""
    return digest(
        {
            "tiers": study.settings.tiers,
            "stimulus_types": study.recording(animal).stimulus_types,
            "scored_frames": study.settings.scored_frames.model_dump(mode="json"),
            "score_unit": study.settings.score_unit,
            "order": study.settings.animals.index(animal),  # by which it has its colour
            "sources": source_digest(script="draw_quality"),
        }
    )


def recording_figure(study: Study, script: str) -> str:
    """What decides a figure of the recordings that `script` draws, given their stores."""
    return digest({"tiers": study.settings.tiers, "sources": source_digest(script=script)})


def reporting() -> str:
    """What decides figures, tables and the page, given the result files."""
    folder = PACKAGE / "reporting"
    data = [f.read_text() for f in sorted(folder.iterdir()) if f.suffix in (".csv", ".jinja")]
    scripts = [f.stem for f in sorted(SCRIPTS.glob("*.py"))]
    shown = [name for name in scripts if name.startswith(("draw_", "tabulate_", "page"))]
    return digest({"sources": [source_digest(script=name) for name in shown], "data": data})


def summary(study: Study) -> str:
    """What the head of the page says of the study besides the records of its members."""
    no_result = {
        "replace_members",
        "adopt_members",
        "keep_predictions",
        "checkpoint_minutes",
        "data_workers",
    }
    return digest(
        {
            "settings": study.settings.model_dump(mode="json", exclude=no_result),
            "systems": {
                name: [system.title, system.citation] for name, system in study.systems.items()
            },
        }
    )


def archive_state(study: Study, animal: str) -> str:
    """What an archive is by its source; of one read in place also sizes and times of its files."""
    source = study.recording(animal).source
    if source.kind not in ("directory", "native") or not source.path.exists():
        return digest(without_places(source.model_dump(mode="json")))
    files = [source.path] if source.path.is_file() else sorted(source.path.rglob("*"))
    states = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return digest([source.model_dump(mode="json"), states])


def without_places(source: Mapping[str, Any]) -> dict[str, Any]:
    """A source without the addresses that it is fetched from."""
    return {key: value for key, value in source.items() if key not in _PLACES}


def changed_keys(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Dotted keys whose values differ between two fingerprints."""
    changed: list[str] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed += changed_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            changed.append(f"{prefix}{key}")
    return changed


def _scored(study: Study, protocol: str) -> dict[str, Any]:
    """The responses with which a protocol scores."""
    return {
        "tiers": study.protocol(protocol).tiers,
        "animals": study.predicted_animals(protocol),
        "scored_frames": study.settings.scored_frames.model_dump(mode="json"),
        "score_unit": study.settings.score_unit,
    }


def _learned(study: Study, training_set: str, system: str) -> dict[str, Any]:
    """The animals and trials that a training set means in this study."""
    chosen = study.systems[system].training_sets[training_set]  # type: ignore[index]
    animals = study.training_animals(training_set, system)
    return {
        "training_set": {
            "name": training_set,
            "train": {"animals": animals, "tiers": study.training_tiers(training_set, system)},
            "select": study.select_tiers(training_set, system),
            "folds": chosen.folds.model_dump() if chosen.folds else None,
            "recordings": {animal: _recorded(study, animal) for animal in animals},
        }
    }


def _recorded(study: Study, animal: str) -> dict[str, Any]:
    """What an animal's recording is. Where it lies does not matter; how it is made does.

    What follows from the code of preprocessing shows in the digest of the store.
    """
    recording = study.recording(animal)
    source = recording.source.model_dump(mode="json")
    return {
        "folder": recording.folder,
        "neurons": recording.neurons,
        "simulation": source if recording.source.kind == "simulated" else None,
        "resampling": source.get("resampling"),
        "frame_rate_hz": study.settings.frame_rate_hz,
    }


def _classes(study: Study, system: str) -> list[str]:
    """Modules of the classes that a system's file names."""
    resolved = study.systems[system]
    paths = [path for path in (resolved.core, resolved.readout, resolved.shifter) if path]
    return [path.split(":")[0] for path in paths]
