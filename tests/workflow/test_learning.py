"""Members trained on a simulated animal, held against the best that any model could reach.

The bounds follow from the simulation: its true rates, scored like a member, are the ceiling.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sensorium_models.configuration import REPOSITORY
from sensorium_models.ensemble import build_ensemble
from sensorium_models.evaluation.correlation import correlation
from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.evaluation.responses import RecordedResponses, open_responses
from sensorium_models.evaluation.scores import member_scores, score_member
from sensorium_models.evaluation.streaming import JointMoments
from sensorium_models.evaluation.subsets import EnsembleMoments, ensemble_scores
from sensorium_models.inference import predict
from sensorium_models.predictions import Predictions
from sensorium_models.recordings.preprocess import write_store
from sensorium_models.recordings.splits import predicted_trials, split_table
from sensorium_models.recordings.stimuli import videos_table
from sensorium_models.recordings.store import Recording, digests
from sensorium_models.simulation.achievable import achievable_scores
from sensorium_models.simulation.recording import SimulationSettings, write_recording
from sensorium_models.study import Study, read_study
from sensorium_models.training.loop import train_member

pytestmark = pytest.mark.slow

TIERS = ["live_test_main", "final_test_main"]
FRAMES: dict[str, Any] = {"cap_frames": 300, "drop_last_frames": 1}
UNIT = "per_frame_published"


@dataclass(frozen=True)
class Trained:
    """What the tests look at: one leaderboard of truth, members and ensemble, and the files."""

    board: pd.DataFrame
    ensemble: Path
    recordings: dict[str, Path]

    def score(self, system: str, member: str) -> float:
        """Single-trial correlation, mean over the two main test tiers."""
        rows = self.board[(self.board["system"] == system) & (self.board["member"] == member)]
        assert set(rows["tier"]) == set(TIERS)
        return float(rows["single_trial_correlation"].mean())


def study(folder: Path) -> Study:
    """The demo's small factorized system, a little smaller still."""
    systems = folder / "systems"
    systems.mkdir()
    (systems / "learner.yaml").write_text(
        "extends: factorized_small\n"
        "members: {seed: [1, 2]}\n"
        "core_settings: {channels: [8, 16]}\n"
        "recipe: {schedule: {max_epochs: 16}}\n"
    )
    return read_study(
        REPOSITORY / "config.yaml",
        REPOSITORY / "config/demo.yaml",
        overrides={
            "animals": ["simA"],
            "systems": ["learner"],
            "protocols": ["open"],
            "ensembles": {"both": None},
            "systems_folders": [str(systems), str(REPOSITORY / "config/demo")],
        },
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("learning")
    demo = study(folder)
    recording = demo.recording("simA")
    archive = folder / f"{recording.folder}.zip"
    write_recording(
        archive=archive,
        folder=recording.folder,
        animal="simA",
        seed=1,
        pair="one",
        role="public",
        settings=SimulationSettings(neurons=40, training_trials=60),
        bonus_types=recording.stimulus_types,
    )
    recordings = {"simA": folder / "simA.h5"}
    write_store(
        archive=archive,
        store=recordings["simA"],
        animal="simA",
        neurons=40,
        frame_rate_hz=30,
        known_tiers=list(demo.settings.tiers),
        withheld_tiers=[],
        train_tier="train",
        stimulus_types=recording.stimulus_types,
    )
    with Recording(recordings["simA"]) as store:
        videos = videos_table([store])
    splits = split_table(
        members=demo.members("learner"),
        videos=videos,
        train={"simA": ["train"]},
        select={"simA": ["oracle"]},
        test_tiers={"simA": TIERS},
    )
    rows, predictions = [], []
    for member, axes in demo.member_axes("learner").items():
        train_member(
            system=demo.systems["learner"],
            member=member,
            axes=axes,
            training_set="clean",
            recordings=recordings,
            splits=splits,
            output=folder / member,
            checkpoint=folder / f"{member}.checkpoint",
            device="cpu",
            threads=1,
            first_scored_frame=50,
            score_unit=UNIT,
            compared_tiers=["oracle"],
            record={},
            **FRAMES,
        )
        predictions.append(folder / f"{member}.h5")
        predict(
            folder / member,
            recordings=recordings,
            trials=predicted_trials(splits, member, ["simA"], TIERS),
            output=predictions[-1],
            unit=UNIT,
            first_scored_frame=50,
            device="cpu",
            threads=1,
            attributes={
                "protocol": "open",
                "training_set": "clean",
                "system": "learner",
                "member": member,
                "frame_convention": "competition",
                "recording_digests": digests(recordings),
                "fingerprint": "",
            },
            **FRAMES,
        )
        with open_responses(recordings, UNIT) as responses:
            rows.append(
                member_scores(score_member(predictions=predictions[-1], responses=responses))
            )
    with open_responses(recordings, UNIT) as responses:
        build_ensemble(
            name="learner",
            members=predictions,
            responses=responses,
            predictions=folder / "ensemble.h5",
            moments=folder / "moments.h5",
            mean=folder / "mean.h5",
        )
    with EnsembleMoments(folder / "moments.h5") as moments:
        rows.append(ensemble_scores(moments))
    achievable_scores(
        protocol="open",
        recordings=recordings,
        archives={"simA": archive},
        tiers=TIERS,
        unit=UNIT,
        first_frame=50,
        output=folder / "achievable.parquet",
        **FRAMES,
    )
    rows.append(pd.read_parquet(folder / "achievable.parquet"))
    board = leaderboard(pd.concat(rows, ignore_index=True))
    return Trained(board, folder / "ensemble.h5", recordings)


def test_the_ensemble_reaches_half_of_what_is_achievable(trained: Trained) -> None:
    ceiling = trained.score("achievable", "truth")
    assert 0.3 < ceiling < 0.9  # a healthy simulation: neither noise nor noiseless
    score = trained.score("learner", "ensemble")
    print(f"ensemble {score:.3f} of {ceiling:.3f} achievable")
    assert ceiling / 2 <= score < ceiling


def test_the_ensemble_beats_every_member(trained: Trained) -> None:
    ensemble = trained.score("learner", "ensemble")
    for member in ("seed1", "seed2"):
        assert ensemble > trained.score("learner", member)


def test_shuffled_responses_score_zero_within_their_standard_error(trained: Trained) -> None:
    rng = np.random.default_rng(0)
    predicted, recorded = [], []
    with (
        Predictions(trained.ensemble) as file,
        open_responses(trained.recordings, UNIT) as responses,
    ):
        for trial in file.trials("simA"):
            prediction = file.read("simA", int(trial))
            predicted.append(prediction)
            recorded.append(scored_responses(responses["simA"], int(trial), len(prediction)))
    prediction, response = np.concatenate(predicted), np.concatenate(recorded)
    frames, neurons = response.shape
    # Each neuron's responses in an order of their own: correlations are then independent with mean
    # 0 and variance 1 / (frames - 1), so their mean over neurons has this standard error.
    shuffled = rng.permuted(response, axis=0)
    scores = correlation(JointMoments.of([prediction, shuffled]))
    error = 1 / math.sqrt((frames - 1) * neurons)
    assert abs(scores.mean()) < 4 * error
    assert correlation(JointMoments.of([prediction, response])).mean() > 20 * error


def scored_responses(responses: RecordedResponses, trial: int, frames: int) -> np.ndarray:
    return responses.read(trial, 50, 50 + frames)
