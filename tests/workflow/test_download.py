"""Archives that the workflow downloads: planned offline, two at a time, never over one another."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from sensorium_models.recordings.store import Recording
from tests.gin_server import GinServer, gin_server, slow
from tests.workflow.conftest import Lab, make_lab

pytestmark = pytest.mark.workflow

ANIMALS = ["tinyA", "tinyB", "tinyF"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GinServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with gin_server(tmp_path / "repositories") as running:
        yield running


def smallest_archive(folder: str) -> bytes:
    """Just enough of a recording to be opened."""
    arrays = {
        "data/videos/0.npy": np.zeros((3, 4, 5)),
        "data/responses/0.npy": np.zeros((2, 5)),
        "meta/trials/tiers.npy": np.array(["train"]),
        "meta/neurons/unit_ids.npy": np.arange(2),
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{folder}/{name}", file.getvalue())
    return made.getvalue()


def gin_lab(folder: Path, address: str, commit: str) -> Lab:
    """The tiny study, its archives on a server."""
    lab = make_lab(folder)
    point_at(lab, address, commit)
    return lab


def point_at(lab: Lab, address: str, commit: str) -> None:
    file = lab.folder / "tiny.yaml"
    study = yaml.safe_load(file.read_text())
    for recording in study["recordings"].values():
        recording["source"] = {
            "kind": "gin",
            "repository": "lab/data",
            "commit": commit,
            "server": address,
        }
    file.write_text(yaml.safe_dump(study))


def folders(lab: Lab) -> dict[str, str]:
    recordings = yaml.safe_load((lab.folder / "tiny.yaml").read_text())["recordings"]
    return {animal: recordings[animal]["folder"] for animal in ANIMALS}


def test_a_plan_asks_no_server(tmp_path: Path) -> None:
    lab = gin_lab(tmp_path / "lab", "http://127.0.0.1:9", "master")
    assert lab.plan("all").jobs["download"] == len(ANIMALS)


def test_a_store_of_what_was_downloaded(
    server: GinServer, finished_lab: Lab, tmp_path: Path
) -> None:
    """From the server to the store, which is that of the same archive made here."""
    lab = gin_lab(tmp_path / "lab", server.address, "master")
    name = folders(lab)["tinyA"]
    content = (finished_lab.folder / "archives" / f"{name}.zip").read_bytes()
    commit = server.publish("lab/data", f"{name}.zip", content)
    store = "results/recordings/tinyA.h5"
    run = lab.snakemake(store)
    assert run.jobs == {"download": 1, "preprocess": 1}
    assert "is not pinned" in (lab.results / "logs/download/tinyA.log").read_text()
    with Recording(lab.folder / store) as fetched, Recording(finished_lab.folder / store) as made:
        assert fetched.digest == made.digest
    # Pinned to the commit that the branch was: nothing comes again and nothing is made again.
    point_at(lab, server.address, commit)
    assert lab.plan(store).nothing_to_do
    # The archive is gone, which is no error while the store is there.
    (lab.folder / "archives" / f"{name}.zip").unlink()
    assert lab.plan(store, config=("archives=elsewhere",)).nothing_to_do


def test_archives_come_two_at_a_time_and_are_never_replaced(
    server: GinServer, tmp_path: Path
) -> None:
    lab = gin_lab(tmp_path / "lab", server.address, "master")
    archives = {name: smallest_archive(name) for name in folders(lab).values()}
    for name, content in archives.items():
        commit = server.publish("lab/data", f"{name}.zip", content)
    server.files |= {
        f"/lab/data/raw/{commit}/{name}.zip": content for name, content in archives.items()
    }
    point_at(lab, server.address, commit)
    receipts = [f"results/receipts/{animal}.json" for animal in ANIMALS]
    server.faults.extend([slow(2.0)] * len(ANIMALS))
    lab.snakemake(*receipts, "--cores", "4")
    assert server.most_at_once <= 2
    assert len(server.requests) == len(ANIMALS)
    for animal, name in folders(lab).items():
        assert (lab.folder / "archives" / f"{name}.zip").read_bytes() == archives[name]
        receipt = json.loads((lab.results / f"receipts/{animal}.json").read_text())
        assert receipt["published"]["commit"] == commit

    # The same content at a new commit: a new receipt, nothing fetched.
    newer = server.publish("lab/data", "readme.zip", b"about")
    point_at(lab, server.address, newer)
    assert lab.snakemake(receipts[0]).jobs == {"download": 1}
    assert len(server.requests) == len(ANIMALS)
    receipt = json.loads((lab.results / "receipts/tinyA.json").read_text())
    assert receipt["published"]["commit"] == newer

    # Other content at a newer one: a sentence, and the archive that is here stays.
    name = folders(lab)["tinyA"]
    changed = server.publish("lab/data", f"{name}.zip", archives[name] + b" ")
    point_at(lab, server.address, changed)
    failed = lab.snakemake(receipts[0], check=False)
    assert failed.code != 0
    assert "Nothing was fetched over it" in failed.output
    assert "Nothing was fetched over it" in (lab.results / "logs/download/tinyA.log").read_text()
    assert (lab.folder / "archives" / f"{name}.zip").read_bytes() == archives[name]
    assert len(server.requests) == len(ANIMALS)
