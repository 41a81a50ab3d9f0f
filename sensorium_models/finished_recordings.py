"""Archives and stores that are there already, and whether the present configuration asks for more.

They take days to fetch and hours to make, so a change of words that means the same bytes (a branch
pinned to the commit that it was, a folder of archives moved) makes nothing again, and a store
outlives its archive.
"""

import json
from pathlib import Path
from typing import Any

import h5py

from sensorium_models import fingerprints
from sensorium_models.study import Study


def store_path(study: Study, animal: str) -> Path:
    """Where an animal's recording store lies."""
    return study.settings.results / "recordings" / f"{animal}.h5"


def receipt_path(study: Study, animal: str) -> Path:
    """Where the receipt of an animal's archive lies."""
    return study.settings.results / "receipts" / f"{animal}.json"


def store_fingerprint(study: Study, animal: str) -> str:
    """What the preprocessing rule carries in its `params`.

    Where the archive is gone, nothing could make the store anew, so one that is there keeps the
    fingerprint that it was made with.
    """
    store, receipt = store_path(study, animal), _receipt(study, animal)
    if receipt and store.exists() and not Path(receipt["archive"]).exists():
        with h5py.File(store, "r", locking=False) as file:
            return str(file.attrs["fingerprint"])
    return fingerprints.preprocess(study, animal)


def archive_state(study: Study, animal: str) -> str:
    """What the rules that write a receipt carry in their `params`: which archive it is.

    It stays what the receipt says where the archive is the same by other words, and where it is
    gone but its store is there.
    """
    state = fingerprints.archive_state(study, animal)
    receipt = _receipt(study, animal)
    if receipt is None or "state" not in receipt:
        return state
    source = study.recording(animal).source
    gone = not Path(receipt["archive"]).exists() and store_path(study, animal).exists()
    if source.kind in ("directory", "native"):
        same = gone and not source.path.exists()
    else:
        same = _resolved(source.model_dump(mode="json"), receipt)
    return str(receipt["state"]) if same else state


def archive_path(study: Study, animal: str) -> str:
    """Where a published archive is or is to be: where its receipt says, once its store is made."""
    receipt = _receipt(study, animal)
    if receipt is not None and store_path(study, animal).exists():
        return str(receipt["archive"])
    # As receipts say it, so that one and the same place never reads as two.
    return str((study.settings.archives / f"{study.recording(animal).folder}.zip").resolve())


def _resolved(source: dict[str, Any], receipt: dict[str, Any]) -> bool:
    """Whether `source` only pins the commit that the branch of the receipt was."""
    before = {**receipt["source"]}
    if receipt.get("published"):
        before["commit"] = receipt["published"]["commit"]
    return fingerprints.without_places(source) == fingerprints.without_places(before)


def _receipt(study: Study, animal: str) -> dict[str, Any] | None:
    path = receipt_path(study, animal)
    if not path.exists():
        return None
    receipt: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return receipt
