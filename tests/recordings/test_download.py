"""From a published archive to its receipt: what is fetched, what is not, what the receipt says."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from sensorium_models import files, fingerprints, finished_recordings, source_code
from sensorium_models.configuration import REPOSITORY
from sensorium_models.recordings import download, gin
from sensorium_models.recordings.archives import ArchiveError
from sensorium_models.recordings.patience import DownloadError, Patience
from sensorium_models.settings import DirectorySource, GinSource
from sensorium_models.study import Study, read_study
from tests.gin_server import GinServer, busy, gin_server, key_of

HASTY = Patience(tries=2, timeout_s=20, sleep=lambda seconds: None)
REPOSITORY_NAME = "pollytur/data"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GinServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with gin_server(tmp_path / "repositories") as running:
        yield running


@pytest.fixture
def content(make: Callable[..., dict], zipped: Callable[..., Path], tmp_path: Path) -> bytes:
    return zipped(make(train=2), tmp_path / "made.zip").read_bytes()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archives" / "mouse.zip"


def source(server: GinServer, commit: str, **changes: object) -> GinSource:
    return GinSource(
        kind="gin", repository=REPOSITORY_NAME, commit=commit, server=server.address, **changes
    )


def test_an_archive_comes_and_its_receipt_says_from_where(
    server: GinServer, content: bytes, archive: Path, tmp_path: Path
) -> None:
    commit = server.publish(REPOSITORY_NAME, "mouse.zip", content)
    published = gin.obtain(source(server, commit), archive, patience=HASTY)
    receipt = tmp_path / "receipts" / "A.json"
    download.write_receipt(receipt, "A", source(server, commit), archive, published)
    said = json.loads(receipt.read_text())
    key = key_of(content)
    assert archive.read_bytes() == content
    assert said["published"] == {
        "repository": f"{server.address}/{REPOSITORY_NAME}",
        "commit": commit,
        "file": "mouse.zip",
        "key": key.text,
        "bytes": len(content),
        "checksum": f"md5:{key.checksum}",
        "address": f"{server.address}/{REPOSITORY_NAME}/raw/{commit}/mouse.zip",
        "started": said["published"]["started"],
        "finished": said["published"]["finished"],
    }
    assert said["published"]["started"] <= said["published"]["finished"] <= said["time"]
    assert download.archive_of(receipt) == archive


def test_an_archive_that_is_here_is_verified_and_not_fetched(
    server: GinServer, content: bytes, archive: Path
) -> None:
    commit = server.publish(REPOSITORY_NAME, "mouse.zip", content)
    archive.parent.mkdir()
    archive.write_bytes(content)
    before = archive.stat()
    published = gin.obtain(source(server, commit), archive, patience=HASTY)
    assert (published["address"], published["commit"]) == (None, commit)
    assert server.requests == []
    assert archive.stat().st_mtime_ns == before.st_mtime_ns


def test_a_shared_folder_is_only_read(server: GinServer, content: bytes, archive: Path) -> None:
    commit = server.publish(REPOSITORY_NAME, "mouse.zip", content)
    archive.parent.mkdir()
    archive.write_bytes(content)
    archive.parent.chmod(0o555)  # does not stop root, so the folder is asked as well
    before = archive.parent.stat().st_mtime_ns
    try:
        gin.obtain(source(server, commit), archive, patience=HASTY)
        assert archive.parent.stat().st_mtime_ns == before
    finally:
        archive.parent.chmod(0o755)


def test_the_same_key_under_a_new_commit_is_no_download(
    server: GinServer, content: bytes, archive: Path
) -> None:
    first = server.publish(REPOSITORY_NAME, "mouse.zip", content)
    gin.obtain(source(server, first), archive, patience=HASTY)
    second = server.publish(REPOSITORY_NAME, "readme.zip", b"about")
    published = gin.obtain(source(server, second), archive, patience=HASTY)
    assert second != first
    assert (published["commit"], published["address"]) == (second, None)
    assert len(server.requests) == 1


def test_what_changed_upstream_is_reported_and_not_fetched_over(
    server: GinServer, content: bytes, archive: Path
) -> None:
    first = server.publish(REPOSITORY_NAME, "mouse.zip", content)
    gin.obtain(source(server, first), archive, patience=HASTY)
    changed = content[::-1]
    second = server.publish(REPOSITORY_NAME, "mouse.zip", changed)
    with pytest.raises(DownloadError) as caught:
        gin.obtain(source(server, "master"), archive, patience=HASTY)
    for said in (second, key_of(content).checksum, key_of(changed).checksum, "move it away"):
        assert said in str(caught.value)
    assert archive.read_bytes() == content
    assert len(server.requests) == 1
    # The commit that it came from still vouches for it.
    gin.obtain(source(server, first), archive, patience=HASTY)


def test_a_cut_archive_is_told_by_its_size(
    server: GinServer, content: bytes, archive: Path
) -> None:
    commit = server.publish(REPOSITORY_NAME, "mouse.zip", content)
    archive.parent.mkdir()
    archive.write_bytes(content[:-1])
    with pytest.raises(DownloadError, match=f"here {len(content) - 1} bytes, there {len(content)}"):
        gin.obtain(source(server, commit), archive, patience=HASTY)


def test_master_is_resolved_and_warned_about(
    server: GinServer, content: bytes, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = server.publish(REPOSITORY_NAME, "mouse.zip", content)
    published = gin.obtain(source(server, "master"), archive, patience=HASTY)
    assert published["commit"] == commit
    assert "Warning: pollytur/data is not pinned" in capsys.readouterr().err
    # The content was asked for by the commit, so that nothing changes between look-up and download.
    assert server.requests == [(f"/{REPOSITORY_NAME}/raw/{commit}/mouse.zip", None)]


def test_a_pinned_commit_is_no_reason_to_warn(
    server: GinServer, content: bytes, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = server.publish(REPOSITORY_NAME, "mouse.zip", content)
    gin.obtain(source(server, commit), archive, patience=HASTY)
    assert "Warning" not in capsys.readouterr().err


def test_mirrors_serve_the_archive_under_its_own_name(
    server: GinServer, content: bytes, archive: Path
) -> None:
    commit = server.publish(REPOSITORY_NAME, "old/published.zip", content)
    server.files["/b/mouse.zip"] = content
    mirrors = [f"{server.address}/a/", f"{server.address}/b"]
    server.faults.append(busy(404))
    chosen = source(server, commit, file="old/published.zip", mirrors=mirrors)
    published = gin.obtain(chosen, archive, patience=HASTY)
    assert published["address"] == f"{server.address}/b/mouse.zip"
    assert [path for path, _ in server.requests] == [
        f"/{REPOSITORY_NAME}/raw/{commit}/old/published.zip",
        "/a/mouse.zip",
        "/b/mouse.zip",
    ]


def test_verified_but_no_recording_is_a_sentence(
    server: GinServer, archive: Path, tmp_path: Path
) -> None:
    commit = server.publish(REPOSITORY_NAME, "mouse.zip", b"not a zip")
    published = gin.obtain(source(server, commit), archive, patience=HASTY)
    with pytest.raises(ArchiveError, match="not a complete zip"):
        download.write_receipt(tmp_path / "A.json", "A", source(server, commit), archive, published)
    assert not (tmp_path / "A.json").exists()


def test_a_source_read_in_place_stays_where_it_is(content: bytes, tmp_path: Path) -> None:
    made = tmp_path / "made.zip"
    kept = DirectorySource(kind="directory", path=made)
    assert download.locate(kept) == made
    download.write_receipt(tmp_path / "A.json", "A", kept, made)
    assert json.loads((tmp_path / "A.json").read_text())["published"] is None
    for damaged in ("", "[]", '{"archive": 3}'):
        (tmp_path / "A.json").write_text(damaged)
        for noted in (download.archive_of, download.checksum_of):
            with pytest.raises(ArchiveError, match=r"A\.json: is no receipt .* Remove it"):
                noted(tmp_path / "A.json")
    with pytest.raises(ArchiveError, match="no such archive or folder"):
        download.locate(DirectorySource(kind="directory", path=tmp_path / "none"))


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": "main"},
        {"commit": "798ba8a"},
        {"commit": "--upload-pack=x"},
        {"repository": "https://example.org/x"},
        {"server": "ext::sh -c true"},
        {"server": "file:///etc"},
        {"mirrors": ["ftp://example.org"]},
        {"file": "../outside.zip"},
        {"file": "/etc/passwd"},
        {"file": "-x"},
    ],
)
def test_sources_that_are_none_are_refused(changes: dict) -> None:
    good = {"kind": "gin", "repository": "lab/data", "commit": "a" * 40}
    GinSource.model_validate(good)
    with pytest.raises(ValidationError):
        GinSource.model_validate({**good, **changes})


def test_the_study_is_pinned_where_the_commit_is_known() -> None:
    recordings = yaml.safe_load((REPOSITORY / "config.yaml").read_text())["recordings"]
    for animal, recording in recordings.items():
        place = (recording["source"]["repository"], recording["source"]["commit"])
        if animal in "ABCDE":
            commit = "798ba8ad041d8f0f0ce879af396d52c7238c2730"
            assert place == ("pollytur/sensorium_2023_data", commit)
        else:
            assert place[0] == "pollytur/sensorium_2023_dataset"


def study_of(results: Path, **source: object) -> Study:
    overrides = {"results": str(results), "recordings": {"F": {"source": source}}}
    return read_study(REPOSITORY / "config.yaml", overrides=overrides)


def test_where_an_archive_is_fetched_makes_nothing_again_but_another_commit_does(
    tmp_path: Path,
) -> None:
    def state(**source: object) -> str:
        return fingerprints.archive_state(study_of(tmp_path, **source), "F")

    assert state() == state(server="https://example.org", mirrors=["https://example.org/zips"])
    assert state() != state(commit="a" * 40)


def obtained(study: Study, archive: Path, commit: str) -> str:
    """Leave the receipt of a download, and a store; returns the state."""
    state = finished_recordings.archive_state(study, "F")
    content = {
        "archive": str(archive),
        "source": study.recording("F").source.model_dump(mode="json"),
        "published": {"commit": commit},
        "state": state,
    }
    files.write_json(finished_recordings.receipt_path(study, "F"), content)
    store = finished_recordings.store_path(study, "F")
    store.parent.mkdir(parents=True)
    store.touch()
    return state


def test_pinning_a_branch_to_the_commit_that_it_was_fetches_nothing_again(tmp_path: Path) -> None:
    found, other = "b" * 40, "c" * 40
    state = obtained(study_of(tmp_path, commit="master"), tmp_path / "F.zip", found)
    now = finished_recordings.archive_state
    assert now(study_of(tmp_path, commit="master"), "F") == state
    assert now(study_of(tmp_path, commit=found), "F") == state
    assert now(study_of(tmp_path, commit=other), "F") != state
    assert now(study_of(tmp_path, commit=found, file="other.zip"), "F") != state
    # And the store is the same store.
    pinned, branch = study_of(tmp_path, commit=found), study_of(tmp_path, commit="master")
    assert fingerprints.preprocess(pinned, "F") == fingerprints.preprocess(branch, "F")


def test_archives_may_move_once_their_stores_are_made(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    wanted = finished_recordings.archive_path(study, "F")
    assert Path(wanted).parent == study.settings.archives.resolve()
    obtained(study, tmp_path / "elsewhere" / "F.zip", "b" * 40)
    assert finished_recordings.archive_path(study, "F") == str(tmp_path / "elsewhere" / "F.zip")
    finished_recordings.store_path(study, "F").unlink()
    assert finished_recordings.archive_path(study, "F") == wanted


def test_an_archive_read_in_place_may_vanish_once_its_store_is_made(tmp_path: Path) -> None:
    archive = tmp_path / "mine.zip"
    archive.write_bytes(b"as it was")
    study = study_of(tmp_path, kind="directory", path=str(archive))
    state = obtained(study, archive, "b" * 40)
    assert finished_recordings.archive_state(study, "F") == state
    archive.write_bytes(b"changed since")
    assert finished_recordings.archive_state(study, "F") != state
    archive.unlink()
    assert finished_recordings.archive_state(study, "F") == state
    # Without the store it has to come back.
    finished_recordings.store_path(study, "F").unlink()
    assert finished_recordings.archive_state(study, "F") != state


def test_making_stores_does_not_depend_on_how_archives_come() -> None:
    script = REPOSITORY / "workflow_scripts" / "preprocess.py"
    behind = set().union(*map(source_code.closure, source_code.imports(script)))
    names = {name.removeprefix("sensorium_models.recordings.") for name, _ in behind}
    assert "archives" in names
    assert not names & {"download", "gin", "transfer", "annex", "patience"}


def test_receipts_need_no_network_library() -> None:
    script = "import sys, sensorium_models.recordings.download; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
