"""Submissions: the layout that the server reads, and a check that finds every mistake."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensorium_models import submission
from sensorium_models.predictions import PredictionWriter
from sensorium_models.submission import (
    UPLOADS,
    ExpectedAnimal,
    SubmissionError,
    problems_of,
    submitted_trials,
    uploads_of,
    write_upload,
)

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


def test_uploads_need_their_tiers() -> None:
    assert uploads_of(["oracle", "live_test_main", "final_test_main"]) == ["main"]
    assert uploads_of([t for parts in UPLOADS.values() for t in parts]) == list(UPLOADS)
