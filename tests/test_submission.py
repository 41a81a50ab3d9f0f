"""Submissions: the layout that the server reads, and a check that finds every mistake."""

import re
import runpy
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models import submission
from sensorium_models.configuration import REPOSITORY
from sensorium_models.predictions import PredictionWriter
from sensorium_models.submission import (
    UPLOADS,
    ExpectedAnimal,
    SubmissionError,
    uploads_of,
    write_upload,
)
from sensorium_models.submitted import problems_of, submitted_trials

FRAMES = {3: 249, 5: 189}
ANIMALS = {
    "F": ExpectedAnimal(
        "dynamic1-Video-f",
        np.array([2, 3, 7]),
        {"live_test_main": {3: 249}, "final_test_main": {5: 189, 9: 249}},
    ),
    "G": ExpectedAnimal(
        "dynamic2-Video-g", np.array([1, 8]), {"live_test_main": {}, "final_test_main": {0: 249}}
    ),
}
LIVE, FINAL = UPLOADS["main"].values()


def rates(animal: str, trial: int, frames: int, neurons: int) -> np.ndarray:
    random = np.random.default_rng([ord(animal), trial])
    return random.gamma(0.5, size=(frames, neurons)).astype(np.float16).astype(np.float32)


def predictions(path: Path, *, unit: str = "per_frame_published", **change: Any) -> Path:
    labels = dict.fromkeys(
        ("protocol", "training_set", "system", "member", "frame_convention", "fingerprint"), "-"
    )
    with PredictionWriter(
        path, **labels, score_unit=unit, first_scored_frame=50, recording_digests={}
    ) as writer:
        for animal, known in ANIMALS.items():
            trials = {t: f for tier in known.trials.values() for t, f in tier.items()}
            for trial, frames in trials.items():
                values = rates(animal, trial, frames, len(known.neuron_ids))
                if change.get("trial") == trial:
                    values = change["to"](values)
                if values is not None:
                    writer.add(animal, known.neuron_ids, trial, values)
    return path


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upload")
    source = predictions(folder / "p.h5")
    write_upload("main", predictions=source, animals=ANIMALS, output=folder / "main.zip")
    assert [f.name for f in sorted(folder.iterdir())] == ["main.zip", "p.h5"]
    return folder / "main.zip"


def test_pandas_reads_what_the_server_expects(upload: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(upload) as archive:
        assert archive.namelist() == [
            "predictions_live_main.parquet.brotli",
            "predictions_final_main.parquet.brotli",
        ]
        archive.extractall(tmp_path)
    table = pd.read_parquet(tmp_path / FINAL)
    assert list(table.columns) == ["mouse", "trial_indices", "prediction", "neuron_ids"]
    assert table["mouse"].tolist() == ["dynamic1-Video-f"] * 2 + ["dynamic2-Video-g"]
    assert table["trial_indices"].tolist() == [5, 9, 0]
    assert table["neuron_ids"][0].dtype == np.uint32
    assert table["neuron_ids"][0].tolist() == [2, 3, 7]
    # A row's prediction is a list of neurons, each a list of frames, in float32.
    found = np.stack(list(table["prediction"][0]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rates("F", 5, 189, 3).T)
    metadata = pq.read_metadata(tmp_path / FINAL)
    assert metadata.num_row_groups == 3
    assert metadata.row_group(0).column(2).compression == "BROTLI"


def test_the_plain_way_reads_back_the_same(upload: Path, tmp_path: Path) -> None:
    """As `DataFrame(...tolist()).to_parquet(compression="brotli")`, which the starter kit does."""
    rows = [
        {
            "mouse": ANIMALS[animal].folder,
            "trial_indices": trial,
            "prediction": rates(animal, trial, frames, len(ANIMALS[animal].neuron_ids)).T.tolist(),
            "neuron_ids": ANIMALS[animal].neuron_ids.astype(np.uint32),
        }
        for animal, trial, frames in (("F", 5, 189), ("F", 9, 249), ("G", 0, 249))
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / FINAL, compression="brotli", index=False)
    with zipfile.ZipFile(upload) as archive:
        (tmp_path / "ours").mkdir()
        archive.extractall(tmp_path / "ours")
    plain, ours = (pd.read_parquet(folder / FINAL) for folder in (tmp_path, tmp_path / "ours"))
    for column in ("mouse", "trial_indices"):
        assert plain[column].tolist() == ours[column].tolist()
    for row in range(3):
        for column in ("prediction", "neuron_ids"):
            np.testing.assert_array_equal(
                np.stack(list(plain[column][row])), np.stack(list(ours[column][row]))
            )
    # The check accepts files from elsewhere, and this one is right.
    assert problems_of(tmp_path / FINAL, ANIMALS) == []


def test_same_predictions_same_file(upload: Path, tmp_path: Path) -> None:
    source = predictions(tmp_path / "p.h5")
    write_upload("main", predictions=source, animals=ANIMALS, output=tmp_path / "main.zip")
    assert (tmp_path / "main.zip").read_bytes() == upload.read_bytes()


def test_what_was_written_passes_the_check(upload: Path) -> None:
    assert problems_of(upload, ANIMALS) == []
    found = {(tier, row.folder, row.trial) for tier, row in submitted_trials(upload)}
    assert ("final_test_main", "dynamic2-Video-g", 0) in found
    assert len(found) == 4


@pytest.mark.parametrize(
    ("change", "unit", "message"),
    [
        ({"trial": 5, "to": lambda values: values[:-1]}, None, r"trial 5 .* has 188 frames.* 189"),
        ({"trial": 5, "to": lambda values: values - 9}, None, "trial 5 .* negative rate"),
        ({"trial": 5, "to": lambda _: None}, None, "trial 5 .* is not predicted"),
        ({}, "raw", "is in unit raw, but the server takes per_frame_published"),
    ],
)
def test_a_wrong_prediction_is_not_uploaded(
    tmp_path: Path, change: dict[str, Any], unit: str | None, message: str
) -> None:
    source = predictions(tmp_path / "p.h5", unit=unit or "per_frame_published", **change)
    output = tmp_path / "out" / "main.zip"
    with pytest.raises(SubmissionError, match=message):
        write_upload("main", predictions=source, animals=ANIMALS, output=output)
    assert not output.parent.exists() or list(output.parent.iterdir()) == []


def test_a_file_that_the_server_would_refuse_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "UPLOAD_LIMIT_BYTES", 1000)
    source = predictions(tmp_path / "p.h5")
    with pytest.raises(SubmissionError, match=r"main\.zip would be .* GB, but the server takes"):
        write_upload("main", predictions=source, animals=ANIMALS, output=tmp_path / "main.zip")
    assert [f.name for f in tmp_path.iterdir()] == ["p.h5"]


def final_rows() -> list[dict[str, Any]]:
    return [
        {
            "mouse": ANIMALS[animal].folder,
            "trial_indices": trial,
            "prediction": rates(animal, trial, frames, len(ANIMALS[animal].neuron_ids)).T.tolist(),
            "neuron_ids": ANIMALS[animal].neuron_ids.tolist(),
        }
        for animal, trial, frames in (("F", 5, 189), ("F", 9, 249), ("G", 0, 249))
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def with_value(rows: list[dict[str, Any]], value: float) -> list[dict[str, Any]]:
    rows[1]["prediction"][2][7] = value
    return rows


def without(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != key} for row in rows]


MISTAKES = {
    "twice": (lambda rows: [*rows, rows[0]], "trial 5: is there twice"),
    "missing": (lambda rows: rows[:2], "mouse dynamic2-Video-g, trial 0: is missing"),
    "stranger": (
        lambda rows: [*rows, {**rows[0], "trial_indices": 44}],
        "trial 44: is no trial of tier final_test_main",
    ),
    "ids": (
        lambda rows: [{**rows[0], "neuron_ids": [2, 3, 8]}, *rows[1:]],
        "trial 5: neuron_ids differ",
    ),
    "frames": (
        lambda rows: [
            {**rows[0], "prediction": [n[:-1] for n in rows[0]["prediction"]]},
            *rows[1:],
        ],
        r"trial 5: prediction is \(3, 188\), not \(3, 189\)",
    ),
    "ragged": (
        lambda rows: [
            {**rows[0], "prediction": [rows[0]["prediction"][0][:-1], *rows[0]["prediction"][1:]]},
            *rows[1:],
        ],
        "trial 5: its neurons have unequal numbers of frames",
    ),
    "nan": (lambda rows: with_value(rows, float("nan")), "trial 9: prediction is not finite"),
    "negative": (lambda rows: with_value(rows, -1e-3), "trial 9: prediction is negative"),
    "column": (lambda rows: without(rows, "neuron_ids"), "lacks the column neuron_ids"),
    "flat": (
        lambda rows: [{**row, "prediction": row["prediction"][0]} for row in rows],
        "trial 5: cannot be read",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_check_finds(tmp_path: Path, mistake: str) -> None:
    change, sentence = MISTAKES[mistake]
    path = write_rows(tmp_path / FINAL, change(final_rows()))
    found = problems_of(path, ANIMALS)
    assert found
    assert any(re.search(sentence, problem) for problem in found), found


def test_trial_names_of_the_readme_are_understood(tmp_path: Path) -> None:
    rows = [{**row, "trial_indices": f"{row['trial_indices']}.npy"} for row in final_rows()]
    assert problems_of(write_rows(tmp_path / FINAL, rows), ANIMALS) == []


def test_a_zip_file_with_other_contents(tmp_path: Path, upload: Path) -> None:
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(write_rows(tmp_path / FINAL, final_rows()), FINAL)
        archive.writestr("../evil.parquet", b"x")
    found = " ".join(problems_of(path, ANIMALS))
    assert "../evil.parquet is none of" in found
    assert "an upload holds" in found
    assert not (tmp_path.parent / "evil.parquet").exists()
    assert "there is no such file" in problems_of(tmp_path / "none.zip", ANIMALS)[0]
    (tmp_path / LIVE).write_bytes(b"not a table")
    assert "is no Parquet file" in problems_of(tmp_path / LIVE, ANIMALS)[0]


def retyped(rows: list[dict[str, Any]], **types: pa.DataType) -> pa.Table:
    """The rows with some columns of a given Arrow type."""
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        column = pa.array([row[name] for row in rows], type=kind)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def test_lists_of_any_kind_are_read(tmp_path: Path) -> None:
    rows = final_rows()[1:2]  # trial 9: three neurons, 249 frames
    values, ids = pa.float32(), pa.int64()
    for prediction, neuron_ids in (
        (pa.list_(pa.list_(values, 249), 3), pa.list_(ids, 3)),
        (pa.list_(pa.list_(values, 249)), pa.list_(ids)),
        (pa.large_list(pa.large_list(pa.float64())), pa.large_list(pa.uint16())),
    ):
        table = retyped(rows, prediction=prediction, neuron_ids=neuron_ids)
        pq.write_table(table, tmp_path / FINAL)
        ((_, row),) = submitted_trials(tmp_path / FINAL)
        assert row.neuron_ids.tolist() == [2, 3, 7]
        np.testing.assert_array_equal(row.prediction, np.float32(rows[0]["prediction"]))


NULL = [[1.0] * 249, None, [1.0] * 249]


@pytest.mark.parametrize(
    ("change", "types", "sentence"),
    [
        ({"neuron_ids": [2.0, 3.0, 7.4]}, {}, "neuron_ids is list<.*double>.* whole numbers"),
        ({"neuron_ids": ["2", "3", "7"]}, {}, "neuron_ids is list<.*string>.* whole numbers"),
        ({"neuron_ids": [2, None, 7]}, {}, "a neuron id is missing. Write the id of every"),
        ({"prediction": NULL}, {}, "of 1 neurons is missing, the first at place 1. Write a number"),
        ({"prediction": []}, {"prediction": 1}, "its prediction is empty. Write a list for every"),
        ({"prediction": None}, {"prediction": 1}, "its prediction is empty"),
        ({"prediction": [["1"] * 249] * 3}, {}, "prediction is list<.*string.*list of numbers"),
        ({"prediction": [[1e300] * 249] * 3}, {}, "prediction is not finite"),
        ({"prediction": [[1.0] * 248 + [None]] * 3}, {}, "prediction is not finite"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_number_for_every_neuron_is_said(
    tmp_path: Path, change: dict[str, Any], types: dict[str, Any], sentence: str
) -> None:
    kinds = dict.fromkeys(types, pa.list_(pa.list_(pa.float32())))
    pq.write_table(retyped([final_rows()[1] | change], **kinds), tmp_path / FINAL)
    found = problems_of(tmp_path / FINAL, ANIMALS)
    about = [problem for problem in found if "trial 9" in problem]
    assert len(about) == 1, found
    assert re.search(f"{FINAL}: mouse dynamic1-Video-f, trial 9: .*{sentence}", about[0])


def spoiled(content: bytes, at: int, length: int = 40) -> bytes:
    return (
        content[:at]
        + bytes((byte ^ 0xA5) for byte in content[at : at + length])
        + content[at + length :]
    )


def damages(upload: Path) -> dict[str, tuple[bytes, str]]:
    """By what is wrong: a zip file, and what is said of it."""
    whole = upload.read_bytes()
    with zipfile.ZipFile(upload) as archive:
        first, second = archive.infolist()
        tables = {entry.filename: archive.read(entry) for entry in (first, second)}
        directory = archive.start_dir
    end = whole.rindex(b"PK\x05\x06")
    inside = second.header_offset + 30 + len(second.filename) + second.file_size // 2

    def zipped(method: int) -> bytes:
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in tables.items():
                archive.writestr(name, content)
        return buffer.getvalue()

    encrypted = bytearray(whole)
    for position in (m.start() for m in re.finditer(b"PK\x01\x02", whole)):
        encrypted[position + 8] |= 1
    names = {LIVE: f"{LIVE} is damaged", FINAL: f"{FINAL} is damaged"}
    return {
        "cut": (whole[:-30], "main.zip: is a zip file whose end is missing"),
        "cut in the middle": (whole[: len(whole) // 2], "is a zip file whose end is missing"),
        "directory": (spoiled(whole, directory), "main.zip: is a damaged zip file"),
        "directory's place": (spoiled(whole, end + 12, 8), "main.zip: is a damaged zip file"),
        "checksum": (spoiled(whole, inside), f"main.zip: {names[FINAL]}"),
        "deflated": (spoiled(zipped(zipfile.ZIP_DEFLATED), 90, 9), f"main.zip: {names[LIVE]}"),
        "bzip2": (spoiled(zipped(zipfile.ZIP_BZIP2), 90, 9), f"main.zip: {names[LIVE]}"),
        "lzma": (spoiled(zipped(zipfile.ZIP_LZMA), 90, 9), f"main.zip: {names[LIVE]}"),
        "encrypted": (bytes(encrypted), f"main.zip: {LIVE} is encrypted"),
    }


KINDS = ("cut", "cut in the middle", "directory", "directory's place", "checksum", "deflated")


@pytest.mark.parametrize("kind", [*KINDS, "bzip2", "lzma", "encrypted"])
def test_a_damaged_zip_file_is_said_to_be_one(tmp_path: Path, upload: Path, kind: str) -> None:
    content, sentence = damages(upload)[kind]
    path = tmp_path / "main.zip"
    path.write_bytes(content)
    (problem,) = problems_of(path, ANIMALS)
    assert sentence in problem
    assert re.search(r"(Copy or write it again|Zip it again, without a password)\.$", problem)
    with pytest.raises(SubmissionError, match="again"):
        list(submitted_trials(path))


@pytest.mark.parametrize("place", ["pages", "half", "footer", "empty"])
def test_a_damaged_table_is_said_to_be_one(tmp_path: Path, upload: Path, place: str) -> None:
    with zipfile.ZipFile(upload) as archive:
        whole = archive.read(FINAL)
    path = tmp_path / FINAL
    path.write_bytes(
        {
            "pages": spoiled(whole, 4, 400),
            "half": whole[: len(whole) // 2],
            "footer": spoiled(whole, len(whole) - 200, 150),
            "empty": b"",
        }[place]
    )
    (problem,) = problems_of(path, ANIMALS)
    assert problem.startswith(f"{FINAL}: is {'damaged at row 0' if place == 'pages' else 'no'}")
    assert problem.endswith("Copy or write it again.")
    assert "\n" not in problem


@given(at=st.floats(0, 1, exclude_max=True), length=st.integers(1, 60), cut=st.booleans())
def test_no_damage_ends_in_a_traceback(
    upload: Path, tmp_path_factory: pytest.TempPathFactory, at: float, length: int, cut: bool
) -> None:
    content = upload.read_bytes()
    place = int(at * len(content))
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(content[:place] if cut else spoiled(content, place, length))
    problems_of(path, ANIMALS)


def test_the_script_prints_what_is_wrong(
    tmp_path: Path, upload: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    script = runpy.run_path(str(REPOSITORY / "workflow_scripts" / "check_submission.py"))
    monkeypatch.setitem(script["main"].__globals__, "expected_animals", lambda *_: ANIMALS)
    path = tmp_path / "main.zip"
    path.write_bytes(damages(upload)["checksum"][0])
    for file, code, message in ((upload, 0, "as the server expects"), (path, 1, "is damaged")):
        monkeypatch.setattr("sys.argv", ["check_submission.py", str(file)])
        assert script["main"]() == code
        assert message in capsys.readouterr().out


def test_uploads_need_their_tiers() -> None:
    assert uploads_of(["oracle", "live_test_main", "final_test_main"]) == ["main"]
    assert uploads_of([t for parts in UPLOADS.values() for t in parts]) == list(UPLOADS)
