"""The pins: one lock for laptops and GPU nodes, and environments that never drift from it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from sensorium_models.configuration import REPOSITORY

LOCK = REPOSITORY / "requirements.lock"


def locked() -> dict[str, str]:
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_every_line_pins_an_exact_public_version() -> None:
    for line in LOCK.read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.!]+", line), line


def test_one_lock_serves_processors_and_gpus() -> None:
    assert locked()["torch"] == "2.13.0"
    assert "+cpu" not in LOCK.read_text()
    # torch pins its own CUDA packages; pinning them here would break the processor build.
    cuda = {name for name in locked() if name.startswith(("nvidia", "cuda", "triton"))}
    assert cuda == {"nvidia-ml-py"}  # asks a driver, where there is one; plain Python, no CUDA


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["development"]
    names = {re.split(r"[<>=]", requirement)[0].lower() for requirement in wanted}
    assert names <= {name.lower() for name in locked()}


@pytest.mark.parametrize("file", sorted((REPOSITORY / "envs").glob("*.yaml")), ids=lambda f: f.stem)
def test_environments_carry_the_pins_of_the_lock(file: Path) -> None:
    dependencies = yaml.safe_load(file.read_text())["dependencies"]
    pinned = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    for requirement in pinned:
        name, version = requirement.split("==")
        assert locked()[name] == version


def test_rules_name_environments_that_exist() -> None:
    for rules in (REPOSITORY / "rules").glob("*.smk"):
        for name in re.findall(r'"\.\./envs/([\w.]+)"', rules.read_text()):
            assert (REPOSITORY / "envs" / name).is_file(), (rules, name)
