"""What decides a result: the resolved configuration and the sources behind each stage.

Snakemake sees neither edits in an imported package nor values inside a system's file, so rules
carry these fingerprints in `params`. Comments, docstrings and formatting leave them as they are.
"""

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sensorium_models.study import Study

_PACKAGE = Path(__file__).resolve().parent

# Reading the configuration, writing files and showing progress change no number: what they decide
# is in the configuration part of a fingerprint already.
_NEUTRAL = {
    "sensorium_models.study",
    "sensorium_models.systems",
    "sensorium_models.files",
    "sensorium_models.progress",
    "sensorium_models.provenance",
    "sensorium_models.fingerprints",
}


def digest(content: Any) -> str:
    """A short stable hash of JSON-like content."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_digest(*modules: str) -> str:
    """Hash of what `modules` and everything of this project that they import would execute."""
    files = sorted(set().union(*(_closure(module) for module in modules)))
    return digest([(name, _meaning(file)) for name, file in files])


def preprocess(study: Study, animal: str) -> str:
    """What decides a recording store."""
    recording = study.recording(animal)
    return digest(
        {
            "recording": recording.model_dump(mode="json"),
            "tiers": study.settings.tiers,
            "frame_rate_hz": study.settings.frame_rate_hz,
            "sources": source_digest("sensorium_models.recordings.preprocess"),
        }
    )


def simulation(study: Study, animal: str) -> str:
    """What decides a simulated archive."""
    return digest(
        {
            "recording": study.recording(animal).model_dump(mode="json"),
            "sources": source_digest("sensorium_models.simulation.recording"),
        }
    )


def split(study: Study, training_set: str, system: str) -> str:
    """What decides a split."""
    return digest(
        {
            **_learned(study, training_set, system),
            "members": study.members(system),
            "test": study.test_animals(training_set, system),
            "sources": source_digest("sensorium_models.recordings.splits"),
        }
    )


def member(study: Study, training_set: str, system: str, name: str) -> dict[str, Any]:
    """What decides a trained member: a change here means another network."""
    resolved = study.systems[system]
    classes = [c for c in (resolved.core, resolved.readout, resolved.shifter) if c]
    return {
        "system": resolved.trained_by(),
        "axes": study.member_axes(system)[name],
        **_learned(study, training_set, system),
        "scored_frames": study.settings.scored_frames.model_dump(mode="json"),
        "sources": source_digest(
            "sensorium_models.training.loop", *(path.split(":")[0] for path in classes)
        ),
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
            "sources": source_digest(
                "sensorium_models.inference", "sensorium_models.evaluation.scores"
            ),
        }
    )


def ensemble(study: Study, protocol: str, system: str) -> str:
    """What decides an ensemble, given its members' predictions."""
    return digest(
        {
            "members": study.members(system),
            "score_unit": study.settings.score_unit,
            "sources": source_digest("sensorium_models.ensemble"),
        }
    )


def scores() -> str:
    """What decides scores, given the moments."""
    return digest({"sources": source_digest("sensorium_models.evaluation.scores")})


def achievable(study: Study) -> str:
    """What decides the scores of the true rates."""
    return digest(
        {
            "scored_frames": study.settings.scored_frames.model_dump(mode="json"),
            "score_unit": study.settings.score_unit,
            "sources": source_digest("sensorium_models.simulation.achievable"),
        }
    )


def reporting() -> str:
    """What decides figures, tables and the page, given the result files."""
    folder = _PACKAGE / "reporting"
    modules = sorted(f"sensorium_models.reporting.{file.stem}" for file in folder.glob("*.py"))
    data = {
        f.name: f.read_text() for f in sorted(folder.iterdir()) if f.suffix in (".csv", ".jinja")
    }
    return digest({"sources": source_digest(*modules), "data": digest(data)})


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


def _learned(study: Study, training_set: str, system: str) -> dict[str, Any]:
    """The animals and trials that a training set means in this study."""
    chosen = study.systems[system].training_sets[training_set]  # type: ignore[index]
    animals = study.training_animals(training_set, system)
    return {
        "training_set": {
            "name": training_set,
            "train": {"animals": animals, "tiers": chosen.train.tiers},
            "select": {
                "animals": study.select_animals(training_set, system),
                "tiers": chosen.select.tiers,
            },
            "folders": {animal: study.recording(animal).folder for animal in animals},
        }
    }


@cache
def _closure(module: str) -> frozenset[tuple[str, Path]]:
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in _NEUTRAL:
            continue
        file = _file_of(name)
        if file is None:
            continue
        found[name] = file
        waiting += _imports(file)
    return frozenset(found.items())


def _file_of(module: str) -> Path | None:
    """The source of a module of this project or of the user's own; None for installed packages."""
    top, *inner = module.split(".")
    root = _root_of(top)
    if root is None:
        return None
    if root.is_file():
        return root if not inner else None
    base = root.joinpath(*inner)
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _root_of(top: str) -> Path | None:
    """Folder of a package, or file of a single module, unless it is installed or built in."""
    if top == _PACKAGE.name:
        return _PACKAGE
    # Only the top name is looked up: finding `torch.nn` would import torch.
    spec = importlib.util.find_spec(top) if top not in sys.stdlib_module_names else None
    if spec is None or spec.origin is None or "site-packages" in spec.origin:
        return None
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations else origin


@cache
def _imports(file: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from package import name` may name a module; names that are none are skipped later.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


@cache
def _meaning(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = _without_docstring(node.body)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _without_docstring(body: list[Any]) -> list[Any]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body
