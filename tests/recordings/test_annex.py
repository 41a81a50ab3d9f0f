"""git-annex keys and pointers: read right from every kind, and every other file in a sentence."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models.recordings.annex import AnnexKey, look_up
from sensorium_models.recordings.patience import DownloadError, Patience
from tests.gin_server import GinServer, gin_server, key_of, pointer

CONTENT = b"trials " * 99
HASTY = Patience(tries=2, timeout_s=20, sleep=lambda seconds: None)


@pytest.fixture
def gin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GinServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with gin_server(tmp_path / "repositories") as server:
        yield server


def read(gin: GinServer, revision: str, file: str = "a.zip", repository: str = "lab/data"):
    return look_up(f"{gin.address}/{repository}.git", revision, file, patience=HASTY)


def test_a_key_by_hand() -> None:
    # MD5 of "abc", RFC 1321, appendix A.5.
    key = AnnexKey.parse("MD5E-s3--900150983cd24fb0d6963f7d28e17f72.zip")
    assert (key.algorithm, key.size) == ("md5", 3)
    assert key.checksum == "900150983cd24fb0d6963f7d28e17f72"


@given(
    backend=st.sampled_from(["MD5", "MD5E", "SHA1", "SHA256", "SHA256E", "SHA512E"]),
    content=st.binary(max_size=50),
)
def test_every_checksum_backend_describes_its_file_and_no_other(
    backend: str, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "content"
    key = key_of(content, backend=backend)
    file.write_bytes(content)
    assert key.describes(file)
    file.write_bytes(content + b"x")
    assert not key.describes(file)
    file.write_bytes(bytes(byte ^ 1 for byte in content))
    assert key.describes(file) == (not content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "WORM-s3-m1--file.zip",
        "URL--http&c%%example.org%file.zip",
        "MD5E--900150983cd24fb0d6963f7d28e17f72.zip",
        "MD5-s3--900150983cd24fb0d6963f7d28e17f72.zip",
        "MD5E-s3--900150983cd24fb0d6963f7d28e17f7.zip",
        "MD5E-s3-S1-C2--900150983cd24fb0d6963f7d28e17f72.zip",
        "MD5E-s3--900150983cd24fb0d6963f7d28e17f72./../../zip",
        "MD5E-s3--900150983cd24fb0d6963f7d28e17f72.zip\n",
        "md5-s3--900150983cd24fb0d6963f7d28e17f72",
    ],
)
def test_what_carries_no_size_and_checksum_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        AnnexKey.parse(text)


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("backend", ["MD5", "MD5E", "SHA256E"])
def test_both_kinds_of_pointers_are_read(gin: GinServer, locked: bool, backend: str) -> None:
    commit = gin.publish("lab/data", "a.zip", CONTENT, locked=locked, backend=backend)
    found = read(gin, commit)
    assert found.commit == commit
    assert found.key == key_of(CONTENT, backend=backend)
    assert found.key.size == len(CONTENT)
    assert gin.requests == []  # no content was asked for


def test_a_pinned_commit_stays_and_master_moves(gin: GinServer) -> None:
    first = gin.publish("lab/data", "a.zip", CONTENT)
    second = gin.publish("lab/data", "a.zip", CONTENT + b"more")
    assert read(gin, first).key == key_of(CONTENT)
    tip = read(gin, "master")
    assert (tip.commit, tip.key) == (second, key_of(CONTENT + b"more"))


def test_a_server_that_gives_branches_only_is_read_as_well(
    gin: GinServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers of the older protocol give no commit by its name and know no filters."""
    first = gin.publish("lab/data", "a.zip", CONTENT)
    gin.publish("lab/data", "a.zip", CONTENT + b"more")
    bare = str(gin.repositories / "lab/data.git")
    subprocess.run(["git", "-C", bare, "config", "uploadpack.allowFilter", "false"], check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.version")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "0")
    assert read(gin, first).key == key_of(CONTENT)
    assert read(gin, "master").key == key_of(CONTENT + b"more")


def test_a_file_in_a_folder_is_found(gin: GinServer) -> None:
    text = key_of(CONTENT).text
    commit = gin.commit(
        "lab/data", {"old mice/a.zip": f"../.git/annex/objects/Gx/7z/{text}/{text}"}
    )
    assert read(gin, commit, "old mice/a.zip").key == key_of(CONTENT)


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04 a small zip in git itself", os.urandom(200_000), "../elsewhere", "/annex/other"],
    ids=["small", "large", "link", "text"],
)
def test_a_file_that_is_no_pointer(gin: GinServer, content: str | bytes) -> None:
    commit = gin.commit("lab/data", {"a.zip": content})
    with pytest.raises(DownloadError, match=rf"a\.zip at commit {commit} is no git-annex pointer"):
        read(gin, commit)


def test_a_pointer_without_a_checksum(gin: GinServer) -> None:
    commit = gin.commit("lab/data", {"a.zip": "/annex/objects/WORM-s3-m1--a.zip\n"})
    with pytest.raises(DownloadError, match=r"'WORM-s3-m1--a\.zip' is no git-annex key"):
        read(gin, commit)


def test_what_is_not_there_ends_in_a_sentence(gin: GinServer) -> None:
    commit = gin.publish("lab/data", "a.zip", CONTENT)
    with pytest.raises(DownloadError, match=r"b\.zip at commit \w+ is not there"):
        read(gin, commit, "b.zip")
    with pytest.raises(DownloadError, match=r"has no commit 0{40}"):
        read(gin, "0" * 40)
    with pytest.raises(DownloadError, match=r"has no branch main"):
        read(gin, "main")
    with pytest.raises(DownloadError, match=r"other\.git cannot be read with git: .*Check the net"):
        read(gin, "master", repository="lab/other")


def test_an_unreachable_server_is_asked_again_and_again(tmp_path: Path) -> None:
    waits: list[float] = []
    patience = Patience(first_wait_s=3, sleep=waits.append)
    with pytest.raises(DownloadError, match="cannot be read with git"):
        look_up("http://127.0.0.1:9/lab/data.git", "master", "a.zip", patience=patience)
    assert waits == [3, 6, 12]


def test_without_git_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DownloadError, match="git is not installed"):
        look_up("http://127.0.0.1:9/lab/data.git", "master", "a.zip", patience=HASTY)


def test_pointers_of_the_test_are_those_of_git_annex() -> None:
    text = f"MD5E-s3--{hashlib.md5(b'abc').hexdigest()}.zip"
    assert pointer(b"abc") == f".git/annex/objects/Gx/7z/{text}/{text}"
    assert pointer(b"abc", locked=False) == f"/annex/objects/{text}\n"
