"""A whole simulated recording, in the released layout or at native rates, and its truth beside it.

Everything is drawn from (seed, pair, animal), so each archive can be written by its own process,
without its partner, and comes out the same every time. Trials are streamed: memory holds the
filters of the neurons and one trial, not the recording.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from sensorium_models import files
from sensorium_models.progress import track
from sensorium_models.simulation import behaviour, imaging, neurons, schedule, stimuli
from sensorium_models.simulation.archive import (
    STATISTICS,
    ReleasedArchive,
    TrainingFrames,
    padded,
)
from sensorium_models.simulation.metadata import AnimalMetadata, read_metadata
from sensorium_models.simulation.schedule import Movie, Presentation
from sensorium_models.simulation.settings import SimulationSettings
from sensorium_models.simulation.truth import TruthWriter, truth_path

__all__ = ["SimulationSettings", "write_recording"]

REFERENCE_MOVIES = 6
# Deconvolved traces of the released recordings are zero only up to about this.
NUMERICAL_NOISE = 1e-8
# Names, headers and tables, generously.
_METADATA_BYTES = 4_000_000


def write_recording(
    *,
    archive: Path,
    folder: str,
    animal: str,
    seed: int,
    pair: str,
    role: str,
    settings: SimulationSettings,
    bonus_types: Mapping[str, Sequence[str]],
    metadata: Path | None = None,
) -> None:
    """Write `archive` (zip) and its truth (`truth.truth_path`), both atomically.

    `native.write_native_recording` writes the same recording at native rates.

    Args:
        archive: the zip file to write.
        folder: top folder inside the zip.
        animal: name of the animal; neurons, noise and behaviour depend on it.
        seed: of the study, not negative; everything depends on it.
        pair: name shared by the two animals that see the same movies.
        role: `public` or `withheld`: responses of the test tiers are zeros in the archive.
        bonus_types: stimulus types shown in `live_test_bonus` and `final_test_bonus`.
        metadata: `.npz` of a real animal (coordinates, trial structure, response statistics).

    Raises:
        ValueError: a setting, role or bonus type makes no sense; the message says which.
        OSError: the disk is full or the metadata cannot be read; nothing is written then.
    """
    archive = Path(archive)
    if not folder or "/" in folder or folder.startswith("."):
        raise ValueError(f"The folder name {folder!r} must be one plain name.")
    recording = SimulatedAnimal(
        animal=animal,
        seed=seed,
        pair=pair,
        role=role,
        settings=settings,
        bonus_types=bonus_types,
        metadata=None if metadata is None else read_metadata(metadata),
    )
    files.check_room(archive, recording.bytes_needed())
    rates_dtype = None if settings.truth_rates == "none" else settings.truth_rates
    # The truth is moved into place first: where the archive is, its truth is.
    with (
        files.replacing(archive) as archive_part,
        files.replacing(truth_path(archive)) as truth_part,
        TruthWriter(
            truth_part, animal=animal, pair=pair, role=role, seed=seed, rates_dtype=rates_dtype
        ) as truth,
        ReleasedArchive(
            archive_part, folder=folder, compression_level=settings.compression_level
        ) as released,
    ):
        recording.write(released, truth, spool=archive.parent)


@dataclass(frozen=True)
class SimulatedTrial:
    """One trial as the instruments saw it.

    Attributes:
        moved: behaviour on the frames.
        phase: of a scan period by which the first visit of plane 0 is late, 0..1.
        counts: spikes per visit, per plane (its neurons, visits).
        expected, response: (N, frames) at 30 Hz, without and with noise.
    """

    moved: behaviour.Behaviour
    phase: float
    counts: list[np.ndarray]
    expected: np.ndarray
    response: np.ndarray


class SimulatedAnimal:
    """One animal: its trials, neurons and scales, drawn; `write` streams it as an archive."""

    def __init__(
        self,
        *,
        animal: str,
        seed: int,
        pair: str,
        role: str,
        settings: SimulationSettings,
        bonus_types: Mapping[str, Sequence[str]],
        metadata: AnimalMetadata | None,
    ) -> None:
        _check(role, seed, settings, bonus_types)
        self.animal, self.seed, self.pair, self.role = animal, seed, pair, role
        self.settings = settings
        self._shown_again: dict[Movie, np.ndarray] = {}
        self.trials = self._draw_trials(bonus_types, metadata)
        # Repeats of a clip of flashed images end in a grey that may last a frame or two longer.
        self.last_grey = self.generator("grey").integers(-2, 3, len(self.trials))
        self.scale = self._behaviour_scale(metadata)
        self._draw_neurons(metadata)

    def generator(self, stream: str, *rest: int) -> np.random.Generator:
        """Random numbers of one stream of this animal."""
        names = (zlib.crc32(self.animal.encode()), zlib.crc32(stream.encode()))
        return np.random.default_rng([self.seed, *names, *rest])

    def _draw_trials(
        self, bonus_types: Mapping[str, Sequence[str]], metadata: AnimalMetadata | None
    ) -> list[Presentation]:
        settings = self.settings
        if metadata is not None:
            return schedule.recorded_schedule(
                seed=self.seed,
                pair=self.pair,
                role=self.role,
                stimulus_type_id=metadata.stimulus_type_id,
                video_id=metadata.video_id,
                bonus_types=bonus_types,
            )
        return schedule.nominal_schedule(
            seed=self.seed,
            pair=self.pair,
            role=self.role,
            training_trials=settings.training_trials,
            test_videos=settings.test_videos,
            random_dots_videos=settings.random_dots_videos or settings.test_videos,
            repeats=settings.repeats,
            none_trials=settings.none_trials,
            bonus_types=bonus_types,
            order=self.generator("order"),
        )

    def _behaviour_scale(self, metadata: AnimalMetadata | None) -> behaviour.BehaviourScale:
        if metadata is not None:
            return metadata.behaviour_scale
        rng = self.generator("behaviour scale")
        speed_mean = float(rng.uniform(1.0, 4.0))
        return behaviour.BehaviourScale(
            pupil_mean=float(rng.uniform(40, 60)),
            speed_mean=speed_mean,
            speed_std=speed_mean * float(rng.uniform(1.5, 2.5)),
            gaze_mean=(float(rng.uniform(120, 180)), float(rng.uniform(120, 180))),
        )

    def _draw_neurons(self, metadata: AnimalMetadata | None) -> None:
        settings = self.settings
        rng = self.generator("neurons")
        if metadata is None:
            self.coordinates = neurons.draw_coordinates(rng, settings.neurons)
        else:
            self.coordinates = metadata.coordinates
        count = len(self.coordinates)
        depths = np.unique(self.coordinates[:, 2])
        self.planes = np.searchsorted(depths, self.coordinates[:, 2]) % imaging.PLANES
        self.ids = np.cumsum(rng.choice([1, 2, 3], count, p=[0.7, 0.25, 0.05])).astype(np.int64)
        self.units = neurons.draw_units(rng, self.coordinates, settings.frame_shape)
        movies = [self._render(Movie("movie", "reference", i)) for i in range(REFERENCE_MOVIES)]
        self.population = neurons.Population(
            units=self.units,
            frame_shape=settings.frame_shape,
            gaze_shift_pixels=settings.gaze_shift_pixels if settings.pupil_center else 0.0,
            reference=movies,
            mean_arousal=self._mean_arousal() if settings.behavior else None,
        )
        rate = settings.mean_rate_hz * np.exp(0.4 * rng.standard_normal(count))
        scale = 8.0 * np.exp(0.5 * rng.standard_normal(count))
        self.rate_hz = np.clip(rate, *neurons.RATE_RANGE_HZ)
        if metadata is not None:
            # std^2 / mean^2 of a trace is that of its expectation plus the noise of the counts,
            # Fano factor * share / (counts per visit): this gives the rate, the mean the scale.
            mean = metadata.response_mean
            relative = (metadata.response_std / mean) ** 2 - self.population.signal_variance
            counts = settings.response_noise * imaging.noise_share() / np.maximum(relative, 1e-3)
            self.rate_hz = np.clip(counts * imaging.SCAN_RATE_HZ, *neurons.RATE_RANGE_HZ)
            scale = mean * imaging.SCAN_RATE_HZ / self.rate_hz
        self.response_scale = scale

    def _mean_arousal(self) -> np.ndarray:
        rng = self.generator("arousal")
        drawn = [behaviour.simulate(rng, 300, self.scale).arousal for _ in range(60)]
        running, pupil = np.concatenate(drawn).T
        return np.array([running.mean(), pupil.mean(), (running * pupil).mean()])

    def _render(self, movie: Movie) -> np.ndarray:
        rng = schedule.movie_generator(self.seed, self.pair, movie)
        return stimuli.render(movie.stimulus_type, rng, self.settings.frame_shape)

    def video(self, trial: int) -> np.ndarray:
        """Grey levels of a trial, uint8 (frames, height, width)."""
        movie = self.trials[trial].movie
        if movie.group == "train":
            return self._render(movie)
        if movie not in self._shown_again:  # a few dozen clips of 0.7 MB, shown ten times each
            self._shown_again[movie] = self._render(movie)
        clip = self._shown_again[movie]
        if movie.stimulus_type == "images":
            clip = stimuli.with_last_grey(clip, int(self.last_grey[trial]))
        return clip

    def write(self, archive: ReleasedArchive, truth: TruthWriter, *, spool: Path) -> None:
        """Stream all trials, then what is known only at the end."""
        settings = self.settings
        response_dtype = np.dtype(settings.response_dtype)
        length = self._padded_frames()
        frames = np.zeros(len(self.trials), dtype=np.int64)
        training = {
            name: TrainingFrames(spool, frames=stimuli.FRAMES["movie"])
            for name in ("videos", "responses", "behavior", "pupil_center")
            if getattr(settings, name, True)
        }
        try:
            for trial in track(range(len(self.trials)), f"simulate {self.animal}", unit="trial"):
                video = self.video(trial)
                frames[trial] = len(video)
                arrays = self._arrays(trial, video, truth)
                for name in training:
                    dtype = np.dtype(settings.video_dtype) if name == "videos" else response_dtype
                    array = arrays[name].astype(dtype, copy=False)
                    if self.trials[trial].tier == "train":
                        training[name].add(array)
                    if name == "responses" and self.withheld(trial):
                        array = np.zeros((len(array), length), dtype)
                    archive.write_array(f"data/{name}/{trial}", padded(array, length))
            for name, spooled in training.items():
                for statistic, values in spooled.statistics(length, response_dtype).items():
                    archive.write_array(f"meta/statistics/{name}/all/{statistic}", values)
        finally:
            for spooled in training.values():
                spooled.close()
        tiers = np.array([trial.tier for trial in self.trials])
        archive.write_array("meta/neurons/cell_motor_coordinates", self.coordinates)
        archive.write_array("meta/neurons/unit_ids", self.ids)
        archive.write_array("meta/trials/tiers", tiers)
        self.write_truth(truth, frames)

    def _arrays(self, trial: int, video: np.ndarray, truth: TruthWriter) -> dict[str, np.ndarray]:
        """Arrays of the archive, time last, without padding."""
        recorded = self.record(trial, video)
        response = recorded.response if self.withheld(trial) else None
        truth.add(trial, recorded.expected, response)
        return {
            "videos": video.transpose(1, 2, 0),
            "responses": recorded.response,
            "behavior": recorded.moved.behavior.T,
            "pupil_center": recorded.moved.pupil_center.T,
        }

    def record(self, trial: int, video: np.ndarray) -> SimulatedTrial:
        """Simulate one trial: the same whenever it is asked for."""
        settings, frames = self.settings, len(video)
        rng = self.generator("trial", trial)
        moved = behaviour.simulate(rng, frames, self.scale)
        phase = float(rng.uniform())
        rates = self.population.relative_rates(video, moved)
        rates *= self.rate_hz[:, None].astype(np.float32)
        counts = imaging.expected_counts(rates, self.planes, phase)
        scale = self.response_scale[:, None].astype(np.float32)
        expected = imaging.display(counts, self.planes, phase, frames) * scale
        if settings.response_noise:
            fano = settings.response_noise
            # Rates are zero up to rounding at worst; Poisson refuses the rounding.
            counts = [rng.poisson(np.maximum(c, 0) / fano) * np.float32(fano) for c in counts]
        response = imaging.display(counts, self.planes, phase, frames) * scale
        response += NUMERICAL_NOISE * (rng.random(response.shape, dtype=np.float32) - 0.5)
        response = response.astype(settings.response_dtype, copy=False)
        return SimulatedTrial(moved, phase, counts, expected, response)

    def withheld(self, trial: int) -> bool:
        """Whether the responses of a trial are kept from the archive."""
        return self.role == "withheld" and self.trials[trial].tier in schedule.WITHHELD_TIERS

    def bytes_needed(self) -> int:
        """Upper bound of what `write` puts on the disk at a time, the truth included."""
        settings = self.settings
        video = np.dtype(settings.video_dtype).itemsize * int(np.prod(settings.frame_shape))
        size = np.dtype(settings.response_dtype).itemsize
        frame = video + size * (len(self.ids) + 4)
        truth = size  # withheld responses
        if settings.truth_rates != "none":
            truth += np.dtype(settings.truth_rates).itemsize
        training = sum(trial.tier == "train" for trial in self.trials)
        statistics = len(STATISTICS) * size * (int(np.prod(settings.frame_shape)) + len(self.ids))
        # Archive and truth, training trials once more until their median is known, statistics.
        frames = self._padded_frames()
        per_frame = len(self.trials) * (frame + truth * len(self.ids)) + training * frame
        return frames * (per_frame + statistics) + _METADATA_BYTES

    def _padded_frames(self) -> int:
        longest = max(
            len(self.video(trial))
            if shown.movie.stimulus_type == "images"
            else stimuli.FRAMES[shown.movie.stimulus_type]
            for trial, shown in enumerate(self.trials)
        )
        return max(longest, self.settings.padded_frames)

    def write_truth(self, truth: TruthWriter, frames: np.ndarray) -> None:
        """What is known once all trials (of so many frames) are simulated."""
        parameters = {field.name: getattr(self.units, field.name) for field in fields(self.units)}
        parameters["kind"] = np.array(neurons.KINDS)[self.units.kind]
        parameters |= {"mean_rate_hz": self.rate_hz, "response_scale": self.response_scale}
        truth.write_units(parameters)
        truth.write_trials(
            {
                "tier": np.array([t.tier for t in self.trials]),
                "stimulus_type": np.array([t.movie.stimulus_type for t in self.trials]),
                "movie": np.array([t.movie.name for t in self.trials]),
                "frames": frames,
            }
        )


def _check(
    role: str,
    seed: int,
    settings: SimulationSettings,
    bonus_types: Mapping[str, Sequence[str]],
) -> None:
    if role not in schedule.ROLES:
        raise ValueError(f"The role is {role!r}; choose among {', '.join(schedule.ROLES)}.")
    if seed < 0:
        raise ValueError(f"The seed is {seed}; it must not be negative.")
    unknown = set(bonus_types) - set(schedule.BONUS_TIERS)
    if unknown:
        raise ValueError(
            f"bonus_types names {sorted(unknown)}; the bonus tiers are {schedule.BONUS_TIERS}."
        )
    listed = [kind for types in bonus_types.values() for kind in types]
    allowed = stimuli.STIMULUS_TYPES[1:]
    if len(set(listed)) < len(listed) or not set(listed) <= set(allowed):
        raise ValueError(
            f"bonus_types lists {listed}; name each of {', '.join(allowed)} at most once."
        )
    timed = settings.behavior or settings.pupil_center or settings.video_dtype != "uint8"
    if role == "withheld" and not timed:
        raise ValueError(
            "A withheld animal with uint8 video and neither behavior nor pupil_center would "
            "not tell how long its trials are; keep one of them or take a float video_dtype."
        )
