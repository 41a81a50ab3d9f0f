"""Training cost per system, from the members' records, beside the published cost (Table 2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sensorium_models.reporting import published
from sensorium_models.reporting.tables import Column, Table, duration

_PUBLISHED = ("gpu", "gpu_memory", "batch_size", "wall_time")


def training_cost_table(
    records: Mapping[str, Mapping[str, Mapping[str, Any]]],
    *,
    histories: Mapping[str, Mapping[str, Path]],
    titles: Mapping[str, str],
    training_set: str,
    simulated: bool,
    published_as: Mapping[str, str] | None = None,
) -> Table:
    """One row per system: hardware, batch, epochs, wall time and memory of one member.

    Args:
        records: system -> member -> its `run.json`.
        histories: system -> member -> its `history.csv`.
        titles: system -> the name that a reader knows.
        published_as: system -> the published system whose cost stands beside it; a system that is
            absent has its own.

    Raises:
        ValueError: no record at all.
    """
    published_as = published_as or {}
    rows = [
        _row(system, members, histories.get(system, {}), titles, published_as.get(system, system))
        for system, members in records.items()
        if members
    ]
    if not rows:
        raise ValueError(
            "The training cost needs the record of at least one member; none was given."
        )
    compared = [row["system"] for row in rows if row["published_system"]]
    ours = "This study, one member"
    theirs = "Published, one model"
    return Table(
        frame=pd.DataFrame(rows).assign(training_set=training_set),
        columns=[
            Column("system_title", "System"),
            Column("members", "members", "count", ours),
            Column("hardware", "hardware", "text", ours),
            Column("clips_per_step", "clips per step", "count", ours),
            Column("epochs", "epochs", "text", ours),
            Column("wall_time", "wall time", "text", ours),
            Column("total_wall_seconds", "all members", "duration", ours),
            Column("host_memory_gb", "memory", "gigabytes", ours),
            Column("gpu_memory_gb", "GPU memory", "gigabytes", ours),
            *(
                Column(f"published_{key}", label, "text", theirs)
                for key, label in zip(
                    _PUBLISHED, ("GPU", "GPU memory", "batch", "wall time"), strict=True
                )
            ),
        ],
        title=f"Training cost, training set {training_set}",
        caption=" ".join(
            [
                *(
                    ["The recordings are simulated and smaller than real ones."]
                    if simulated
                    else []
                ),
                "Epochs: mean (smallest to largest) over members; wall time: mean ± standard "
                "deviation (ddof 1) over members; memory: the largest peak of any member. "
                "Published values: Turishcheva et al. (2024), arXiv 2407.09100, Table 2 (training "
                "on the full recordings; GPU memory is that of the card).",
                *published.variations(compared, published_as=published_as, titles=titles),
            ]
        ),
        section="training",
        order=1,
    )


def _row(
    system: str,
    members: Mapping[str, Mapping[str, Any]],
    histories: Mapping[str, Path],
    titles: Mapping[str, str],
    published_system: str,
) -> dict[str, Any]:
    records = list(members.values())
    seconds = np.array([float(r["wall_seconds"]) for r in records if "wall_seconds" in r])
    epochs = np.array([int(pd.read_csv(path)["epoch"].max()) for path in histories.values()])
    row: dict[str, Any] = {
        "system": system,
        "system_title": titles.get(system, system),
        "members": len(records),
        "hardware": "; ".join(sorted({hardware(record) for record in records})),
        "clips_per_step": clips_per_step(records[0]),
        "epochs": _epochs(epochs),
        "wall_time": _wall_time(seconds),
        "mean_wall_seconds": seconds.mean() if len(seconds) else None,
        "total_wall_seconds": seconds.sum() if len(seconds) else None,
        "host_memory_gb": _peak(records, "host"),
        "gpu_memory_gb": _peak(records, "gpu"),
    }
    cost = published.training_cost(published_system)
    row["published_system"] = published_system if cost else None
    return row | {f"published_{key}": cost.get(key) for key in _PUBLISHED}


def hardware(record: Mapping[str, Any]) -> str:
    """What a member was trained on: its GPU or, where none was used, its processor."""
    machine = (record.get("environment") or {}).get("machine") or {}
    gpu, processor = machine.get("gpu"), machine.get("processor")
    # A machine may have a GPU that the training did not use.
    if gpu and record.get("device") != "cpu":
        return str(gpu)
    return str(processor) if processor else "not recorded"


def clips_per_step(record: Mapping[str, Any]) -> int | None:
    """Clips behind one step of the optimiser; None where not recorded.

    Only a recipe that sums the gradients of all animals has a batch of each before a step; a batch
    of one animal and a batch of mixed animals are a step by themselves.
    """
    recipe = (record.get("system") or {}).get("recipe") or {}
    clips, batches = recipe.get("clips_per_batch"), recipe.get("batches")
    if not clips or not batches:
        return None
    if batches != "all_animals_summed":
        return int(clips)
    animals = record.get("animals") or record.get("recordings")
    return int(clips) * len(animals) if animals else None


def _peak(records: list[Mapping[str, Any]], where: str) -> float | None:
    peaks = [(record.get("peak_memory_mb") or {}).get(where) for record in records]
    known = [float(peak) for peak in peaks if peak is not None]
    return max(known) / 1024 if known else None


def _epochs(epochs: np.ndarray) -> str | None:
    if not len(epochs):
        return None
    if epochs.min() == epochs.max():
        return str(epochs.min())
    return f"{epochs.mean():.0f} ({epochs.min()} to {epochs.max()})"


def _wall_time(seconds: np.ndarray) -> str | None:
    if not len(seconds):
        return None
    mean = duration(float(seconds.mean()))
    return f"{mean} ± {duration(float(seconds.std(ddof=1)))}" if len(seconds) > 1 else mean
