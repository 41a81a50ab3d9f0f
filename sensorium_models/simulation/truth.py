"""The truth beside a simulated archive, and the best scores that any model can reach.

`{archive}.truth.h5` holds what an experiment never knows: the expected response of every neuron in
every trial, the responses withheld from the archive, and the parameters of the neurons. It is read
by the emulated server and by tests, never by a model.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from sensorium_models.files import Closing

SCHEMA_VERSION = 1
# As the official code: added to the standard deviations, so that a constant correlates with 0.
EPSILON = 1e-8


def truth_path(archive: Path) -> Path:
    """Where the truth of an archive lies."""
    return archive.with_name(f"{archive.stem}.truth.h5")


class TruthError(ValueError):
    """What was asked of a truth file is not in it, or it is none."""


class Truth(Closing):
    """Read-only handle on a truth file; a context manager.

    Attributes:
        animal, pair, role: as given when the archive was written.
        tier, stimulus_type, movie: per trial of the archive; trials with the same `movie` in two
            archives of one pair and seed show the same pixels.
        frames: valid frames per trial.

    Raises:
        TruthError: the file is missing or no truth file of this version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise TruthError(f"There is no truth file {self.path}; simulate the recording again.")
        try:
            self._file = h5py.File(self.path, "r", locking=False)
            version = int(self._file.attrs["truth_schema_version"])
        except (OSError, KeyError) as error:
            raise TruthError(f"{self.path} is no readable truth file: {error}.") from error
        if version != SCHEMA_VERSION:
            raise TruthError(
                f"{self.path} has schema version {version}, expected {SCHEMA_VERSION}; "
                "simulate the recording again."
            )
        self.animal, self.pair, self.role = (
            str(self._file.attrs[key]) for key in ("animal", "pair", "role")
        )
        trials = self._file["trials"]
        self.tier, self.stimulus_type, self.movie = (
            trials[key].asstr()[:] for key in ("tier", "stimulus_type", "movie")
        )
        self.frames: np.ndarray = trials["frames"][:]

    def rates(self, trial: int) -> np.ndarray:
        """Expected response (frames, N) float32 in raw response units: the mean of what is
        recorded in this trial, given its stimulus and behaviour."""
        if "rates" not in self._file:
            raise TruthError(f"{self.path} was written without rates (truth_rates: none).")
        return self._trace("rates", trial)

    def responses(self, trial: int) -> np.ndarray:
        """True response (frames, N) of a trial whose response the archive withholds.

        Raises:
            TruthError: the trial's response is in the archive.
        """
        if str(trial) not in self._file["responses"]:
            raise TruthError(
                f"{self.path} holds no response of trial {trial} (tier {self.tier[trial]}): it is "
                "not withheld, read it from the archive."
            )
        return self._trace("responses", trial)

    @property
    def withheld_trials(self) -> np.ndarray:
        """Trials whose responses are here and not in the archive, ascending."""
        return np.array(sorted(int(name) for name in self._file["responses"]), dtype=np.int64)

    @property
    def receptive_fields(self) -> np.ndarray:
        """Centres (N, 2): x, y in pixels of the frame, gaze straight ahead."""
        return self.units("receptive_field")

    def units(self, name: str) -> np.ndarray:
        """One parameter of all neurons, e.g. `direction` (see `neurons.Units`), `kind`,
        `mean_rate_hz`, `response_scale`."""
        if name not in self._file["neurons"]:
            known = ", ".join(sorted(self._file["neurons"]))
            raise TruthError(f"{self.path} holds no parameter {name!r}; it holds {known}.")
        values = self._file["neurons"][name]
        parameter: np.ndarray = values.asstr()[:] if values.dtype.kind in "OS" else values[:]
        return parameter

    def close(self) -> None:
        self._file.close()

    def _trace(self, group: str, trial: int) -> np.ndarray:
        if str(trial) not in self._file[group]:
            raise TruthError(f"{self.path} has no trial {trial}; it has {len(self.tier)} trials.")
        trace: np.ndarray = self._file[group][str(trial)][:].T.astype(np.float32)
        return trace


class TruthWriter(Closing):
    """Fills a new truth file; use it as a context manager.

    Args:
        rates_dtype: `float32`, `float16`, or None to keep no rates (a full-scale animal).
    """

    def __init__(
        self,
        path: Path,
        *,
        animal: str,
        pair: str,
        role: str,
        seed: int,
        rates_dtype: str | None,
    ) -> None:
        self._file = h5py.File(path, "w", locking=False)
        self._file.attrs.update(
            truth_schema_version=SCHEMA_VERSION, animal=animal, pair=pair, role=role, seed=seed
        )
        self._rates_dtype = rates_dtype
        self._file.create_group("responses")
        if rates_dtype is not None:
            self._file.create_group("rates")

    def write_units(self, parameters: dict[str, np.ndarray]) -> None:
        """Keep parameters of the neurons, each (N, ...)."""
        for name, values in parameters.items():
            self._file[f"neurons/{name}"] = (
                values.astype("S") if values.dtype.kind == "U" else values
            )

    def write_trials(self, columns: dict[str, np.ndarray]) -> None:
        """Keep columns of the trial table, each (trials,)."""
        for name, values in columns.items():
            self._file[f"trials/{name}"] = (
                values.astype("S") if values.dtype.kind == "U" else values
            )

    def add(self, trial: int, rates: np.ndarray, withheld_response: np.ndarray | None) -> None:
        """Keep one trial's arrays, (N, frames)."""
        if self._rates_dtype is not None:
            self._file[f"rates/{trial}"] = rates.astype(self._rates_dtype)
        if withheld_response is not None:
            self._file[f"responses/{trial}"] = withheld_response

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class BestScores:
    """Scores of the true expectation per neuron, each (N,) float64."""

    single_trial: np.ndarray
    to_average: np.ndarray


def best_scores(
    *,
    responses: Sequence[np.ndarray],
    rates: Sequence[np.ndarray],
    videos: Sequence[Hashable],
    precision: np.ndarray | float = 1.0,
    first_frame: int = 50,
    cap_frames: int | None = 300,
    drop_last_frames: int = 1,
) -> BestScores:
    """Score the true expected responses against recorded ones, over all trials given.

    Single-trial correlation is over all frames of all trials with one mean per neuron; correlation
    to average first takes the mean over the trials of each video, frame by frame, up to the
    shortest. No model can predict better than these, up to chance, in the mean.

    Args:
        responses, rates: per trial (frames, N), raw units, time first.
        videos: per trial, what tells repeats of one video.
        precision: (frames or more, N) or (1, N), multiplied to both: the score unit.
        first_frame, cap_frames, drop_last_frames: scored are the frames
            first_frame .. min(frames, cap_frames) - drop_last_frames, exclusive.
    """
    if not len(responses) == len(rates) == len(videos) or not len(videos):
        raise ValueError(
            f"There are {len(responses)} responses, {len(rates)} rates and {len(videos)} videos; "
            "give one of each per trial, and at least one trial."
        )
    scale = np.atleast_2d(np.asarray(precision, dtype=np.float64))

    def scored(trace: np.ndarray) -> np.ndarray:
        stop = min(len(trace), cap_frames or len(trace)) - drop_last_frames
        frames = slice(first_frame, stop)
        unit = scale if len(scale) == 1 else scale[frames]
        return np.asarray(trace[frames], dtype=np.float64) * unit

    pairs = [(scored(r), scored(e)) for r, e in zip(responses, rates, strict=True)]
    single = _correlation([r for r, _ in pairs], [e for _, e in pairs])
    averages: list[tuple[np.ndarray, np.ndarray]] = []
    for video in dict.fromkeys(videos):
        repeats = [pair for pair, name in zip(pairs, videos, strict=True) if name == video]
        shortest = min(len(r) for r, _ in repeats)
        averages.append(
            (
                np.mean([r[:shortest] for r, _ in repeats], axis=0),
                np.mean([e[:shortest] for _, e in repeats], axis=0),
            )
        )
    average = _correlation([r for r, _ in averages], [e for _, e in averages])
    return BestScores(single_trial=single, to_average=average)


def _correlation(responses: list[np.ndarray], predictions: list[np.ndarray]) -> np.ndarray:
    response, prediction = np.concatenate(responses), np.concatenate(predictions)
    response = (response - response.mean(axis=0)) / (response.std(axis=0) + EPSILON)
    prediction = (prediction - prediction.mean(axis=0)) / (prediction.std(axis=0) + EPSILON)
    correlation: np.ndarray = np.mean(response * prediction, axis=0)
    return correlation
