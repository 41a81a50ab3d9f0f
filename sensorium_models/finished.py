"""Finished members and whether the present configuration would still make them.

A member stands for GPU hours, so none is ever trained again silently: where what decides it has
changed since, the plan stops with the list, unless the study says `replace_members` or
`adopt_members`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py

from sensorium_models import files, fingerprints
from sensorium_models.configuration import ConfigurationError
from sensorium_models.finished_recordings import store_path
from sensorium_models.study import Study

# What a member learned from, by which it is judged ever after.
LEARNED_SPLIT = "split.parquet"
# All of these make a finished member.
OUTPUTS = ("run.json", "weights.safetensors", "history.csv", LEARNED_SPLIT)


def member_folder(study: Study, training_set: str, system: str, member: str) -> Path:
    """Where a member lies."""
    return study.settings.results / "members" / training_set / system / member


def is_whole(folder: Path) -> bool:
    """Whether all that makes a finished member lies in `folder`."""
    return all((folder / name).exists() for name in OUTPUTS)


class MemberGuard:
    """Tells the workflow which members to train, and refuses to replace finished ones unasked."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def folder(self, training_set: str, system: str, member: str) -> Path:
        """Where a member lies."""
        return member_folder(self._study, training_set, system, member)

    def fingerprint(self, training_set: str, system: str, member: str) -> dict[str, Any]:
        """What decides the member, for its record."""
        return fingerprints.member(self._study, training_set, system, member)

    def check(self, training_set: str, system: str, member: str) -> None:
        """Called for every member that a plan needs.

        Raises:
            ConfigurationError: it is finished, what decides it has changed since, and the study
                does not say what to do about it; the message lists every such member.
        """
        settings = self._study.settings
        if settings.replace_members or settings.adopt_members:
            return
        if self.changed_keys(training_set, system, member):
            raise ConfigurationError(self._list_of_changed())

    def pattern(self, *, imported: bool = False) -> str:
        """Wildcard pattern of the training rule's first wildcard: members that are to be trained.

        It looks ahead over the whole path, so that the rule exists for these members only. With
        `imported`, that of the rule which makes members of published weights.
        """
        waiting = [
            "/".join(names)
            for names in self._all()
            if self._study.is_imported(*names[:2]) == imported and self._is_to_be_trained(*names)
        ]
        return f"(?=(?:{'|'.join(waiting)})/)(?:published|clean)" if waiting else "(?!)"

    def _is_to_be_trained(self, training_set: str, system: str, member: str) -> bool:
        folder = self.folder(training_set, system, member)
        if not is_whole(folder):
            return True
        # Comparing opens every store; without leave to replace, nothing would come of it.
        replace = self._study.settings.replace_members
        return replace and bool(self.changed_keys(training_set, system, member))

    def changed_keys(self, training_set: str, system: str, member: str) -> list[str]:
        """Keys that differ between a finished member and what would be trained now."""
        folder = self.folder(training_set, system, member)
        record = read_record(folder)
        if record is None:
            return []
        adopted = read_adopted(folder) or {}
        wanted = fingerprints.member(self._study, training_set, system, member)
        changed = []
        if wanted != adopted.get("fingerprint"):
            changed += fingerprints.changed_keys(record["fingerprint"]["content"], wanted)
        accepted = adopted.get("recordings", {})
        for animal, digest in self._present_recordings(record).items():
            if digest not in (record["recordings"][animal], accepted.get(animal)):
                changed.append(f"recordings.{animal}")
        return changed

    def adopt(self) -> list[str]:
        """Record that every changed finished member stands as it is; returns their names."""
        adopted = []
        for training_set, system, member in self._finished():
            if self.changed_keys(training_set, system, member):
                folder = self.folder(training_set, system, member)
                record = read_record(folder)
                assert record is not None
                content = {
                    "fingerprint": fingerprints.member(self._study, training_set, system, member),
                    "recordings": self._present_recordings(record),
                }
                files.write_json(folder / "adopted.json", content)
                adopted.append(f"{training_set}/{system}/{member}")
        return adopted

    def adopted(self) -> list[tuple[str, str, str]]:
        """Members that stand although something about them has changed: they learned otherwise."""
        return [names for names in self._finished() if read_adopted(self.folder(*names))]

    def _all(self) -> list[tuple[str, str, str]]:
        return [
            (training_set, system, member)
            for training_set, system in self._study.trainings()
            for member in self._study.members(system)
        ]

    def _finished(self) -> list[tuple[str, str, str]]:
        return [names for names in self._all() if read_record(self.folder(*names)) is not None]

    def _present_recordings(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Digests of the member's recordings as they are now; unchanged where a store is absent."""
        present = dict(record["recordings"])
        for animal in present:
            store = store_path(self._study, animal)
            if store.exists():
                with h5py.File(store, "r", locking=False) as file:
                    present[animal] = str(file.attrs["digest"])
        return present

    def _list_of_changed(self) -> str:
        lines, hours = [], 0.0
        for training_set, system, member in self._finished():
            keys = self.changed_keys(training_set, system, member)
            if keys:
                record = read_record(self.folder(training_set, system, member)) or {}
                hours += float(record.get("wall_seconds", 0.0)) / 3600
                lines.append(f"  {training_set}/{system}/{member}: {', '.join(keys)}")
        return "\n".join(
            [
                f"{len(lines)} finished members would be trained again ({hours:.2f} hours of "
                "training are at stake), because what decides them has changed:",
                *lines,
                "Train them again with --config replace_members=true, or keep them as they are, "
                "which is recorded, with --config adopt_members=true.",
            ]
        )


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of the finished member in `folder`, or None where there is none.

    Raises:
        ConfigurationError: it is no valid JSON.
    """
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigurationError(
            f"{folder / 'run.json'}: is no valid record ({error}); remove the member's folder to "
            "train it again."
        ) from error
    return record


def read_adopted(folder: Path) -> dict[str, Any] | None:
    """What a finished member was adopted under, if it was."""
    path = folder / "adopted.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def by_system(paths: Iterable[str | Path]) -> dict[str, dict[str, Path]]:
    """Sort files of members (`.../{system}/{member}/{file}`) by system and member."""
    sorted_paths: dict[str, dict[str, Path]] = {}
    for path in map(Path, paths):
        sorted_paths.setdefault(path.parent.parent.name, {})[path.parent.name] = path
    return sorted_paths
