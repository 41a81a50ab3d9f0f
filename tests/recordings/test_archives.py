"""Every archive that cannot be used ends in one sentence, with nothing half written."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium_models.recordings.archives import ArchiveError, open_archive

FOLDER = "dynamic00000-1-1-Video-0123456789abcdef"


def test_metadata(make: Any, zipped: Any, tmp_path: Path) -> None:
    content = make()
    with open_archive(zipped(content, tmp_path / "A.zip")) as archive:
        assert archive.folder == FOLDER
        assert archive.modalities == ("video", "responses", "behavior", "pupil_center")
        assert archive.frame_shape == (6, 9)
        assert archive.neuron_ids.dtype == np.int64
        assert archive.coordinates is not None
        assert archive.coordinates.dtype == np.float64
        np.testing.assert_array_equal(archive.tiers, content["meta/trials/tiers.npy"])
        np.testing.assert_array_equal(archive.read("video", 3), content["data/videos/3.npy"])
        statistics = archive.published_statistics("responses")
        assert statistics is not None
        assert set(statistics) == {"mean", "std", "min", "max"}  # the median is not used
        assert statistics["std"].shape == (7, 33)
        assert archive.uncompressed_bytes > sum(array.nbytes for array in content.values())


def test_reading_one_trial_touches_no_other(make: Any, zipped: Any, tmp_path: Path) -> None:
    content = make()
    content["data/videos/9.npy"] = b"not numpy"
    with open_archive(zipped(content, tmp_path / "A.zip")) as archive:
        np.testing.assert_array_equal(archive.read("video", 3), content["data/videos/3.npy"])


def test_folder_checksum_is_that_of_content(make: Any, unpacked: Any, tmp_path: Path) -> None:
    content = make(train=1)
    sums = []
    for name in ("one", "two"):
        with open_archive(unpacked(content, tmp_path / name)) as archive:
            sums.append(archive.checksum())
    content["data/behavior/0.npy"][0, 0] += 1
    with open_archive(unpacked(content, tmp_path / "three")) as archive:
        sums.append(archive.checksum())
    assert sums[0] == sums[1] != sums[2]


# Faults in the files of a trial or in the metadata: (what is done to the content, what is said).


def _set(name: str, value: Any) -> Any:
    return lambda content: content.__setitem__(name, value)


def _remove(*prefixes: str) -> Any:
    def change(content: dict[str, Any]) -> None:
        for name in [name for name in content if name.startswith(prefixes)]:
            del content[name]

    return change


def _edit(name: str, index: Any, value: Any) -> Any:
    return lambda content: content[name].__setitem__(index, value)


def _wider_header(content: dict[str, Any]) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (7, 9999999), }"
    header = header.ljust(118) + b"\n"
    content["data/responses/3.npy"] = (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(7 * 33 * 8)
    )


def _endless_header(content: dict[str, Any]) -> None:
    header = b"{'descr': '<f8', " + b"(" * 60_000
    content["data/responses/3.npy"] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def _silence(content: dict[str, Any]) -> None:
    for trial in np.flatnonzero(content["meta/trials/tiers.npy"] == "oracle"):
        content[f"data/responses/{trial}.npy"] = np.zeros((7, 33))


def _no_training(content: dict[str, Any]) -> None:
    tiers = content["meta/trials/tiers.npy"]
    tiers[tiers == "train"] = "oracle"


FAULTS = {
    "not npy": (_set("data/behavior/3.npy", b"PK not an array at all"), "trial 3, behavior"),
    "empty file": (_set("data/videos/3.npy", b""), "trial 3, video .*not a readable .npy"),
    "object dtype": (
        _set("data/responses/3.npy", np.array([{"a": 1}] * 7, dtype=object)),
        "trial 3, responses.*dtype object.*numpy.save",
    ),
    "object tiers": (
        _set("meta/trials/tiers.npy", np.array(["train"], dtype=object)),
        "tiers.npy.*dtype object",
    ),
    "strings": (_set("data/responses/3.npy", np.full((7, 33), "x")), "trial 3, responses.*dtype"),
    "complex": (_set("data/responses/3.npy", np.ones((7, 33), complex)), "complex128"),
    "header too large": (_wider_header, "trial 3, responses.*9999999.*bytes follow"),
    "header bomb": (_endless_header, "trial 3, responses.*not a readable .npy"),
    "one neuron less": (
        _set("data/responses/3.npy", np.ones((6, 33))),
        r"trial 3, responses.*\(6, 33\).*7 neurons of meta/neurons/unit_ids.npy",
    ),
    "time first": (_set("data/responses/3.npy", np.ones((33, 7))), "trial 3, responses"),
    "other frame size": (
        _set("data/videos/3.npy", np.ones((6, 8, 33))),
        r"trial 3, video.*\(6, 9, T\).*trial 0",
    ),
    "video without height": (_set("data/videos/3.npy", np.ones((6, 33))), "trial 3, video"),
    "no frames": (_set("data/videos/3.npy", np.ones((6, 9, 0))), "trial 3, video"),
    "three channels": (_set("data/behavior/3.npy", np.ones((3, 33))), "trial 3, .*two channels"),
    "shorter array": (
        _set("data/behavior/3.npy", np.ones((2, 31))),
        "trial 3.*same number of frames.*behavior 31",
    ),
    "missing trial": (_remove("data/pupil_center/3."), "trial 3, pupil_center.*missing"),
    "missing responses": (_remove("data/responses/0."), "trial 0, responses.*missing"),
    "no videos": (_remove("data/videos"), "trial 0, video.*missing"),
    "trial too many": (
        _set("data/videos/99.npy", np.ones((6, 9, 33))),
        "trial 99, video.*lists only 26 trials",
    ),
    "no tiers": (_remove("meta/trials"), "tiers.npy is missing"),
    "tiers two-dimensional": (
        _set("meta/trials/tiers.npy", np.array([["train"]])),
        "tiers.npy has shape",
    ),
    "tiers that are no text": (
        _set("meta/trials/tiers.npy", np.array([b"\xff"] * 26)),
        "tiers.npy holds a name that is no plain text",
    ),
    "unknown tier": (
        _edit("meta/trials/tiers.npy", 4, "validation"),
        "trial 4 is of tier 'validation'.*knows only train",
    ),
    "no training trial": (_no_training, "no trial is of tier 'train'"),
    "silent public tier": (_silence, "responses of all trials of tier oracle are zero"),
    "NaN frame inside": (
        _edit("data/videos/3.npy", np.s_[..., 5], np.nan),
        "trial 3, video.*NaN inside the trial: frame 5.*frame 6 is valid again",
    ),
    "one NaN inside": (
        _edit("data/responses/3.npy", (4, 11), np.nan),
        "trial 3, responses.*NaN inside the trial: frame 11.*frame 12",
    ),
    "NaN in first row": (
        _edit("data/behavior/3.npy", (0, 8), np.nan),
        "trial 3, behavior.*NaN inside the trial: frame 8",
    ),
    "valid after padding": (
        _edit("data/pupil_center/3.npy", np.s_[:, -1], 1.0),
        "trial 3, pupil_center.*NaN inside the trial.*frame 32 is valid again",
    ),
    "too large for float32": (
        _edit("data/responses/3.npy", (2, 7), 1e300),
        "trial 3, responses.*holds a value of more than 3e38",
    ),
    "infinite": (_edit("data/responses/3.npy", (2, 7), np.inf), "frame 7 holds an infinite value"),
    "all NaN": (_edit("data/videos/3.npy", np.s_[...], np.nan), "trial 3.*no valid frame"),
    "no neuron ids": (_remove("meta/neurons/unit_ids"), "unit_ids.npy is missing"),
    "ids of other length": (
        _set("meta/neurons/unit_ids.npy", np.arange(6)),
        "lists 6 neurons|6 neurons of meta",
    ),
    "ids twice": (_set("meta/neurons/unit_ids.npy", np.zeros(7, int)), "distinct integer"),
    "coordinates": (
        _set("meta/neurons/cell_motor_coordinates.npy", np.ones((7, 2))),
        "cell_motor_coordinates.npy has shape",
    ),
    "statistics": (
        _set("meta/statistics/responses/all/std.npy", np.ones(7)),
        r"std.npy has shape \(7,\)",
    ),
    "statistics of no frame": (
        _set("meta/statistics/responses/all/std.npy", np.ones((7, 0))),
        r"std.npy has shape \(7, 0\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_content_ends_in_a_sentence(
    fault: str, make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    change, said = FAULTS[fault]
    content = make()
    content["meta/trials/tiers.npy"] = content["meta/trials/tiers.npy"].astype("U16")
    change(content)
    _refused(zipped(content, tmp_path / "A.zip"), said, prepare, tmp_path)


def test_neurons_of_another_animal(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(), tmp_path / "A.zip")
    with pytest.raises(ArchiveError, match=r"holds 7 neurons, but .* 7440 for animal A"):
        prepare(archive, tmp_path / "A.h5", neurons=7440)


# Faults of the zip file itself.


def test_missing_archive(prepare: Any, tmp_path: Path) -> None:
    said = "There is no archive at .*A.zip. Run the download"
    _refused(tmp_path / "A.zip", said, prepare, tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95, 0.9999])
def test_truncated_zip(kept: float, make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(), tmp_path / "A.zip")
    archive.write_bytes(archive.read_bytes()[: int(kept * archive.stat().st_size)])
    _refused(archive, "not a complete zip file.*again", prepare, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../x.npy",
        f"{FOLDER}/../../x.npy",
        "/etc/passwd",
        "C:/x.npy",
        f"{FOLDER}\\..\\x.npy",
        "__MACOSX/../../x.npy",
    ],
)
def test_escaping_path(name: str, make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(), tmp_path / "A.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(zipfile.ZipInfo(name), b"x")
    _refused(archive, "leaves the archive's folder", prepare, tmp_path)


def test_two_top_folders(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(), tmp_path / "A.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("another/data/videos/0.npy", b"x")
    _refused(archive, f"exactly one folder.*another, {FOLDER}", prepare, tmp_path)


def test_file_outside_folder(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(), tmp_path / "A.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("readme.txt", b"x")
    _refused(archive, "lies outside the recording's folder", prepare, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_same_name_twice(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(), tmp_path / "A.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(f"{FOLDER}/data/videos/0.npy", b"x")
    _refused(archive, "0.npy' twice", prepare, tmp_path)


def test_empty_zip(prepare: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "A.zip", "w"):
        pass
    _refused(tmp_path / "A.zip", "exactly one folder", prepare, tmp_path)


def test_not_a_recording_folder(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    _refused(tmp_path / "A", "neither a recording's folder", prepare, tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_byte_fails_the_checksum(
    compression: int, make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    archive = zipped(make(), tmp_path / "A.zip", compression=compression)
    with zipfile.ZipFile(archive) as file:
        entry = file.getinfo(f"{FOLDER}/data/responses/3.npy")
    content = bytearray(archive.read_bytes())
    # Beyond header and first row: only reading the whole entry can notice.
    content[entry.header_offset + entry.compress_size // 2 + 500] ^= 0x10
    archive.write_bytes(content)
    _refused(archive, "trial 3, responses.*cannot be read.*copy the archive", prepare, tmp_path)


def test_damaged_local_header(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(), tmp_path / "A.zip")
    with zipfile.ZipFile(archive) as file:
        entry = file.getinfo(f"{FOLDER}/data/videos/3.npy")
    content = bytearray(archive.read_bytes())
    content[entry.header_offset : entry.header_offset + 4] = b"XXXX"
    archive.write_bytes(content)
    _refused(archive, "trial 3, video.*cannot be read", prepare, tmp_path)


def _refused(archive: Path, said: str, prepare: Any, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=said) as caught:
        prepare(archive, tmp_path / "stores" / "A.h5")
    message = str(caught.value)
    assert archive.name in message
    assert message.endswith(".")
    assert not list((tmp_path / "stores").glob("*"))
