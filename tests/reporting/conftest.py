"""Generated scores, histories, records and predictions with the shapes that the pipeline writes."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sensorium_models.evaluation.ceiling import CEILINGS, RELATIVE_SCORES
from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.evaluation.responses import RecordedResponses
from sensorium_models.predictions import PredictionWriter

UNIT = "per_frame_published"
CONVENTION = "frames 50..T-2 of a trial of T, at most 300"
TITLES = {
    "factorized_baseline": "Factorized baseline",
    "linear_nonlinear": "Linear-nonlinear",
    "gru_baseline": "GRU baseline",
    "dwiseneuro": "DwiseNeuro",
    "dynamic_v1fm": "Dynamic-V1FM",
    "viv1t": "ViV1T",
    "viv1t_2025": "ViV1T 2025",
}
SEEDS = (8, 16, 42, 64, 128, 512, 1024, 2048, 4096, 16384, 32768, 131072, 262144, 1048576)
TIERS = {
    "live_test_main": ("movie",),
    "live_test_bonus": ("gabor",),
    "final_test_main": ("movie",),
    "final_test_bonus": ("gaussian_dots", "random_dots"),
}


def make_scores(
    members: dict[str, int],
    *,
    protocol: str = "open",
    neurons: int = 12,
    animals: Sequence[str] = ("A", "B"),
    tiers: dict[str, Sequence[str]] = TIERS,
    withheld: bool = False,
    seed: int = 1,
) -> pd.DataFrame:
    """Tidy scores of `members` (system -> how many); more than one member gives an ensemble too."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for place, (system, count) in enumerate(members.items()):
        names = [f"seed{value}" for value in SEEDS[:count]] + (["ensemble"] if count > 1 else [])
        level = 0.32 - 0.035 * place
        for member in names:
            shift = 0.03 if member == "ensemble" else rng.normal(0, 0.008)
            for animal in animals:
                for tier, types in tiers.items():
                    for kind in types:
                        mean = level + shift - (0.08 if "bonus" in tier else 0.0)
                        values = rng.normal(mean, 0.1, neurons).clip(-0.2, 0.9)
                        row = {
                            "protocol": protocol,
                            "training_set": "clean",
                            "system": system,
                            "member": member,
                            "animal": animal,
                            "tier": tier,
                            "stimulus_type": kind,
                            "trials": 20,
                            "videos": 4,
                            "frames": 4980,
                            "trials_left_out": 0,
                            "reason": None,
                            "score_unit": UNIT,
                            "frame_convention": CONVENTION,
                        }
                        if withheld:
                            empty = {
                                "neuron_id": pd.NA,
                                "trials": 0,
                                "reason": "responses withheld",
                            }
                            rows.append(
                                row
                                | empty
                                | {
                                    "single_trial_correlation": np.nan,
                                    "correlation_to_average": np.nan,
                                }
                            )
                            continue
                        rows += [
                            row
                            | {
                                "neuron_id": 3 * neuron + 1,
                                "single_trial_correlation": value,
                                "correlation_to_average": min(1.9 * value, 0.97),
                            }
                            for neuron, value in enumerate(values)
                        ]
    table = pd.DataFrame(rows).assign(
        **dict.fromkeys((*RELATIVE_SCORES, *CEILINGS), 0.4), reliable=True
    )
    return table.astype({"neuron_id": "Int64", "reliable": "boolean"})


def make_intervals(board: pd.DataFrame, *, half: float = 0.03) -> pd.DataFrame:
    """Intervals of the scores in a leaderboard, as `evaluation.uncertainty` makes them."""
    rows = []
    for (system, tier), part in board.groupby(["system", "tier"], sort=False):
        for metric in ("single_trial_correlation", "correlation_to_average"):
            members = part.loc[part["member"] != "ensemble", metric]
            ensemble = part.loc[part["member"] == "ensemble", metric]
            for estimate, values in (("ensemble", ensemble), ("members", members)):
                score = float((values if len(values) else members).mean())
                rows.append(
                    {
                        "system": system,
                        "tier": tier,
                        "metric": metric,
                        "estimate": estimate,
                        "score": score,
                        "lower": score - half,
                        "upper": score + half,
                        "level": 0.95,
                        "resampled": "animals, videos, neurons",
                        "degrees_of_freedom": 4,
                        "resamples": 500,
                    }
                )
    return pd.DataFrame(rows)


def make_history(epochs: int, seed: int) -> pd.DataFrame:
    """A history as training writes it; epoch 0 is before training and has no loss."""
    rng = np.random.default_rng([seed, 7])
    epoch = np.arange(epochs + 1)
    objective = 0.3 * (1 - np.exp(-epoch / (epochs / 4))) + rng.normal(0, 0.006, epochs + 1)
    loss = 9000 * (1 + 0.5 * np.exp(-epoch / (epochs / 5))) + rng.normal(0, 30, epochs + 1)
    loss[0] = np.nan
    rounds = np.minimum(epoch * 4 // (epochs + 1), 3)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "round": rounds,
            "learning_rate": 0.005 * 0.3**rounds,
            "train_loss": loss,
            "objective": objective,
            "best": np.maximum.accumulate(objective),
            "frames_per_second": 900.0,
            "seconds": 12.0,
        }
    )


def make_record(system: str, seed: int) -> dict[str, Any]:
    """A `run.json` with the keys that the report reads."""
    return {
        "system": {
            "name": system,
            "recipe": {"clips_per_batch": 8, "batches": "all_animals_summed"},
        },
        "recordings": {"A": "0" * 64, "B": "1" * 64},
        "fingerprint": {"digest": f"{seed:064x}", "content": {}},
        "environment": {
            "git": {"commit": "c0ffee" * 6 + "c0ff", "dirty": False},
            "machine": {"processor": "Some processor", "gpu": "Some GPU"},
        },
        "device": "cuda:0",
        "wall_seconds": 5000.0 + seed % 700,
        "peak_memory_mb": {"host": 4096.0, "gpu": 10240.0},
    }


def make_curve(members: int, *, tiers: Sequence[str] = tuple(TIERS), seed: int = 3) -> pd.DataFrame:
    """Score against members as `evaluation.subsets.score_by_size` returns it."""
    rng = np.random.default_rng([seed, members])
    level = 0.2 + 0.02 * (seed % 7)
    rows = [
        {
            "tier": tier,
            "metric": metric,
            "size": size,
            "order": order,
            "score": factor
            * (level + 0.05 * (1 - 1 / size) + rng.normal(0, 0.008) * (1 / size - 1 / members)),
        }
        for tier in tiers
        for metric, factor in (("single_trial_correlation", 1.0), ("correlation_to_average", 1.9))
        for order in range(10)
        for size in range(1, members + 1)
    ]
    return pd.DataFrame(rows)


def make_responses(
    *, neurons: int = 12, repeats: int = 4, frames: int = 300, noise: float = 0.6
) -> tuple[RecordedResponses, np.ndarray]:
    """Responses of one animal to one video (tier final_test_main), and their true rate (T, N)."""
    rng = np.random.default_rng(11)
    kernel = np.exp(-np.arange(12) / 4.0)
    drive = rng.exponential(0.12, (frames, neurons)) * (rng.random((frames, neurons)) < 0.12) * 6
    rate = np.stack([np.convolve(drive[:, n], kernel)[:frames] for n in range(neurons)], axis=1)
    gain = np.linspace(1.0, 0.05, neurons)
    recorded = np.maximum(
        rate * gain
        + noise * rng.standard_normal((repeats, frames, neurons)) * np.sqrt(rate + 0.05),
        0,
    ).astype(np.float32)

    def read(modality: str, trial: int, start: int, stop: int) -> np.ndarray:
        assert modality == "responses"
        return recorded[trial, start:stop]

    recording = SimpleNamespace(
        animal="A",
        digest="0" * 64,
        neuron_ids=3 * np.arange(neurons) + 1,
        read=read,
        close=lambda: None,
        trials=SimpleNamespace(
            tier=np.array(["final_test_main"] * repeats),
            stimulus_type=np.array(["movie"] * repeats),
            first_response_frame=np.arange(repeats) * frames,
            video=np.zeros(repeats, dtype=np.int32),
            video_id=np.array(["a" * 32] * repeats),
        ),
    )
    responses = RecordedResponses(recording, unit=UNIT, precision=np.ones((1, neurons)))
    return responses, rate * gain


def write_predictions(
    path: Path, rate: np.ndarray, *, system: str, member: str, trials: int, error: float
) -> None:
    """A prediction file for the trials of `make_responses`: the true rate with some error."""
    rng = np.random.default_rng([5, len(system)])
    with PredictionWriter(
        path,
        protocol="open",
        training_set="clean",
        system=system,
        member=member,
        score_unit=UNIT,
        first_scored_frame=50,
        frame_convention=CONVENTION,
        recording_digests={"A": "0" * 64},
        fingerprint="f" * 64,
    ) as writer:
        for trial in range(trials):
            smooth = rng.standard_normal(rate.shape[1]) * error * 0.1
            prediction = np.maximum(
                rate[50:-1] * (1 - error) + rate.mean(axis=0) * error + smooth, 0
            )
            writer.add("A", 3 * np.arange(rate.shape[1]) + 1, trial, prediction)


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """Makers of everything that the report reads, as attributes."""

    def board(members: dict[str, int], **options: Any) -> pd.DataFrame:
        return leaderboard(make_scores(members, **options))

    return SimpleNamespace(
        titles=dict(TITLES),
        seeds=SEEDS,
        tiers=TIERS,
        board=board,
        intervals=make_intervals,
        scores=make_scores,
        history=make_history,
        record=make_record,
        curve=make_curve,
        responses=make_responses,
        write_predictions=write_predictions,
    )
