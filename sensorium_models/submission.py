"""Submission files of the Dynamic SENSORIUM competition: what the server expects, and writing them.

One Parquet file per tier with a row per trial, three zip files to upload (layout: paper section A.6
and the starter kit ecker-lab/sensorium_2023; names as its winners uploaded them). Predictions are
written straight from the prediction file, trial by trial, in the score unit, which is the server's.
Reading any back, and checking it: `submitted`.
"""

import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from sensorium_models import files
from sensorium_models.predictions import Predictions, scored_frames
from sensorium_models.progress import track
from sensorium_models.recordings.store import Recording
from sensorium_models.study import Study

# Which tiers are uploaded together, and the name that the server expects for each.
UPLOADS: Mapping[str, Mapping[str, str]] = {
    "main": {
        "live_test_main": "predictions_live_main.parquet.brotli",
        "final_test_main": "predictions_final_main.parquet.brotli",
    },
    "bonus_live": {"live_test_bonus": "predictions_live_test_bonus_ood.parquet.brotli"},
    "bonus_final": {"final_test_bonus": "predictions_final_test_bonus_ood.parquet.brotli"},
}
UPLOAD_LIMIT_BYTES = 5_000_000_000
SERVER_UNIT = "per_frame_published"

# The highest levels take a minute a trial and save a tenth.
_BROTLI_LEVEL = 1
COLUMNS = ("mouse", "trial_indices", "prediction", "neuron_ids")
_SCHEMA = pa.schema(
    [
        ("mouse", pa.string()),
        ("trial_indices", pa.int64()),
        ("prediction", pa.list_(pa.list_(pa.float32()))),
        ("neuron_ids", pa.list_(pa.uint32())),
    ]
)


class SubmissionError(ValueError):
    """A submission that cannot be written, or read back (`submitted`)."""


@dataclass(frozen=True)
class ExpectedAnimal:
    """What the server has of one animal: its folder's name, neurons, and scored trials.

    `trials` gives the number of scored frames of every trial of a tier, in the order of the trials.
    """

    folder: str
    neuron_ids: np.ndarray  # (N,)
    trials: Mapping[str, Mapping[int, int]]


def expected_animal(
    recording: Recording,
    *,
    folder: str,
    tiers: Sequence[str],
    first_frame: int,
    cap_frames: int | None,
    drop_last_frames: int,
) -> ExpectedAnimal:
    """What the server has of an animal, from its recording store."""
    trials: dict[str, dict[int, int]] = {}
    for tier in tiers:
        trials[tier] = {}
        for trial in map(int, recording.trials_of([tier])):
            scored = scored_frames(
                int(recording.trials.frames[trial]),
                first_frame=first_frame,
                cap_frames=cap_frames,
                drop_last_frames=drop_last_frames,
            )
            trials[tier][trial] = scored.stop - scored.start
    return ExpectedAnimal(folder, np.asarray(recording.neuron_ids), trials)


def expected_animals(
    study: Study, protocol: str, stores: Mapping[str, Path]
) -> dict[str, ExpectedAnimal]:
    """`expected_animal` for every recording store, by animal, as a study's protocol scores them."""
    scored = study.settings.scored_frames
    expected = {}
    for animal, store in stores.items():
        with Recording(store) as recording:
            expected[animal] = expected_animal(
                recording,
                folder=study.recording(animal).folder,
                tiers=study.protocol(protocol).tiers,
                first_frame=scored.first,
                cap_frames=scored.cap,
                drop_last_frames=scored.drop_last,
            )
    return expected


def uploads_of(tiers: Sequence[str]) -> list[str]:
    """The uploads all of whose tiers are among `tiers`."""
    return [name for name, parts in UPLOADS.items() if set(parts) <= set(tiers)]


def is_submitted(study: Study, protocol: str) -> bool:
    """Whether a server scores the protocol: its animals' test responses are withheld."""
    definition = study.protocol(protocol)
    return definition.animals == "withheld" and bool(uploads_of(definition.tiers))


def write_upload(
    upload: str, *, predictions: Path, animals: Mapping[str, ExpectedAnimal], output: Path
) -> None:
    """Write one of `UPLOADS` as a zip file, atomically; about two trials are in memory at a time.

    Args:
        predictions: file of an ensemble or a member that holds all trials of the upload's tiers.
        animals: by animal as in the prediction file.

    Raises:
        SubmissionError: a trial is missing or of another length, a rate is negative, the unit is
            not the server's, or the zip file is larger than the server takes.
        OSError: the disk has no room for it.
    """
    with ExitStack() as stack:
        source = stack.enter_context(Predictions(predictions))
        if source.attributes.score_unit != SERVER_UNIT:
            raise SubmissionError(
                f"{predictions} is in unit {source.attributes.score_unit}, but the server takes "
                f"{SERVER_UNIT}. Set score_unit: {SERVER_UNIT} and predict again."
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        files.check_room(output, _largest_bytes(animals, list(UPLOADS[upload])))
        temporary = stack.enter_context(files.replacing(output))
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for tier, name in UPLOADS[upload].items():
                table = stack.enter_context(files.scratch(output.with_name(name)))
                _write_tier(table, tier, source, animals)
                # A fixed date: the same predictions make the same file.
                entry = zipfile.ZipInfo(name, date_time=(2023, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                with table.open("rb") as read, archive.open(entry, "w", force_zip64=True) as write:
                    while block := read.read(2**22):
                        write.write(block)
                table.unlink()
        size = temporary.stat().st_size
        if size > UPLOAD_LIMIT_BYTES:
            raise SubmissionError(
                f"{output} would be {size / 1e9:.2f} GB, but the server takes at most "
                f"{UPLOAD_LIMIT_BYTES / 1e9:.0f} GB. Leave out animals that are not scored."
            )


def _largest_bytes(animals: Mapping[str, ExpectedAnimal], tiers: Sequence[str]) -> int:
    """Of an upload and one of its tables, were two-byte numbers not to shrink at all."""
    tables = [
        sum(len(known.neuron_ids) * sum(known.trials[tier].values()) for known in animals.values())
        for tier in tiers
    ]
    return 2 * (sum(tables) + max(tables, default=0))


def _write_tier(
    path: Path, tier: str, source: Predictions, animals: Mapping[str, ExpectedAnimal]
) -> None:
    with pq.ParquetWriter(
        path,
        _SCHEMA,
        compression="brotli",
        compression_level=_BROTLI_LEVEL,
        # Predictions are stored as float16, so few values differ: a dictionary is small and quick.
        use_dictionary=True,
        write_statistics=False,
    ) as writer:
        rows = [
            (animal, trial, frames)
            for animal, known in animals.items()
            for trial, frames in sorted(known.trials[tier].items())
        ]
        for animal, trial, frames in track(rows, f"submit {tier}", unit="trial"):
            known = animals[animal]
            where = f"{source.path}: animal {animal}, trial {trial} ({tier})"
            if animal not in source.animals or trial not in source.trials(animal):
                raise SubmissionError(f"{where} is not predicted. Predict this animal again.")
            if not np.array_equal(source.neuron_ids(animal), known.neuron_ids):
                raise SubmissionError(f"{where} is of other neurons than the recording.")
            prediction = source.read(animal, trial)  # (frames, N)
            if len(prediction) != frames:
                raise SubmissionError(
                    f"{where} has {len(prediction)} frames, but the server scores {frames}."
                )
            if (prediction < 0).any():
                raise SubmissionError(f"{where} holds a negative rate, which no system predicts.")
            # Flat values and offsets: no Python object per number.
            values = pa.array(np.ascontiguousarray(prediction.T).ravel())
            starts = pa.array(np.arange(0, len(values) + 1, frames, dtype=np.int32))
            by_neuron = pa.ListArray.from_arrays(starts, values)
            whole = pa.array([0, len(by_neuron)], type=pa.int32())
            ids = pa.array(known.neuron_ids.astype(np.uint32))
            columns = [
                pa.array([known.folder]),
                pa.array([trial], type=pa.int64()),
                pa.ListArray.from_arrays(whole, by_neuron),
                pa.ListArray.from_arrays(whole, ids),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), row_group_size=1)
