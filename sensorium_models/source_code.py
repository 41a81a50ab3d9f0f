"""What sources of this project would execute: modules, what they import of it, and their meaning.

Comments, docstrings and formatting do not count, and neither does anything that is installed.
"""

import ast
import hashlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
SCRIPTS = PACKAGE.parent / "workflow_scripts"

# Reading the configuration and records, writing files and showing progress change no number: what
# they decide is in the configuration part of a fingerprint already.
_NEUTRAL = {
    "sensorium_models.configuration",
    "sensorium_models.consistency",
    "sensorium_models.joint_ensembles",
    "sensorium_models.settings",
    "sensorium_models.study",
    "sensorium_models.systems",
    "sensorium_models.training_sets",
    "sensorium_models.recipes",
    "sensorium_models.files",
    "sensorium_models.progress",
    "sensorium_models.recordings.download",
    "sensorium_models.recordings.frame_shape",
    "sensorium_models.provenance",
    "sensorium_models.fingerprints",
    "sensorium_models.source_code",
    "sensorium_models.finished",
    "sensorium_models.finished_recordings",
    "sensorium_models.jobs",
    "sensorium_models.slurm",
    "sensorium_models.training.failures",
    "sensorium_models.training.lock",
    "sensorium_models.training.process",
    "sensorium_models.training.records",
    "sensorium_models.training.usage",
}


def meanings(*modules: str, script: Path | None = None) -> list[tuple[str, str]]:
    """Hash of what each of `modules` and everything of this project behind them would execute.

    Args:
        script: a file outside the package, whose imports count as well.
    """
    found: set[tuple[str, Path]] = set()
    found = found.union(*(closure(module) for module in modules))
    if script is not None:
        found |= {(script.stem, script)}.union(*(closure(name) for name in imports(script)))
    return [(name, meaning(file)) for name, file in sorted(found)]


@cache
def closure(module: str) -> frozenset[tuple[str, Path]]:
    """A module and the modules of this project that it needs, with their files."""
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
        waiting += imports(file, f"{name}." if file.name == "__init__.py" else name)
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
    if top == PACKAGE.name:
        return PACKAGE
    # Only the top name is looked up: finding `torch.nn` would import torch.
    spec = importlib.util.find_spec(top) if top not in sys.stdlib_module_names else None
    places = list(spec.submodule_search_locations or []) if spec else []
    if spec is None or "site-packages" in str([spec.origin, *places]):
        return None
    if places:
        return Path(places[0])
    return Path(spec.origin) if spec.origin else None


@cache
def imports(file: Path, module: str = "") -> tuple[str, ...]:
    """Names that a file imports; `module` is its own, from which relative imports start."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # Relative imports start at the package of the module that holds them.
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            # `from package import name` may name a module; names that are none are skipped later.
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)


@cache
def meaning(file: Path) -> str:
    """Hash of what a file would execute."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = _without_docstring(node.body)
    # Source text and not `ast.dump`, whose form differs between versions of Python.
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _without_docstring(body: list[Any]) -> list[Any]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body
