"""Atomic writing: the old file, the new file, or none; never half of one."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sensorium_models import files

HALF_WRITTEN = """
import os, signal, sys
from pathlib import Path
from sensorium_models import files

with files.replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "value.json"
    files.write_json(path, {"a": 1})

    def fail_half_way() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [entry.name for entry in path.parent.iterdir()] == ["value.json"]


def test_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "figure.pdf") as temporary:
        assert temporary.suffix == ".pdf"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert (tmp_path / "figure.pdf").read_bytes() == b"x"


def test_what_a_killed_process_left_behind_is_removed_by_the_next_attempt(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    other = tmp_path / "other.h5"
    for target in (path, other):
        killed = subprocess.run([sys.executable, "-c", HALF_WRITTEN, str(target)], check=False)
        assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"whole")
        # Somebody alive may be writing the same file: theirs is not ours to remove.
        files.remove_abandoned(path)
        assert temporary.exists()
    assert path.read_bytes() == b"whole"
    assert sorted(entry.name.split(".")[1] for entry in tmp_path.glob(".*")) == ["other"]


def test_a_disk_without_room_is_named_before_writing(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    files.check_room(tmp_path / "new" / "file.h5", free // 2)
    with pytest.raises(
        OSError, match=r"file\.h5 needs up to [\d,]+ bytes, but .* has only"
    ) as full:
        files.check_room(tmp_path / "new" / "file.h5", 2 * free)
    assert full.value.errno == errno.ENOSPC
    assert not (tmp_path / "new").exists()


def test_a_scratch_file_goes_in_any_case(tmp_path: Path) -> None:
    with files.scratch(tmp_path / "new" / "table.parquet") as temporary:
        temporary.write_text("rows")
        assert temporary.suffix == ".parquet"
        # A killed process leaves it, and the next one removes it.
        abandoned = temporary.with_name(temporary.name.replace(str(os.getpid()), "999999999"))
        abandoned.write_text("rows")
    assert list((tmp_path / "new").iterdir()) == [abandoned]
    with suppress(KeyError), files.scratch(tmp_path / "new" / "table.parquet") as temporary:
        temporary.write_text("rows")
        raise KeyError
    assert not list((tmp_path / "new").iterdir())
