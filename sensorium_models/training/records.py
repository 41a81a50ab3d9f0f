"""What a training shows while it runs (a bar or lines) and leaves behind (its history)."""

import csv
import io
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from tqdm import tqdm

from sensorium_models import files
from sensorium_models.provenance import environment

HISTORY_COLUMNS = (
    "epoch",
    "round",
    "learning_rate",
    "train_loss",
    "objective",
    "best",
    "frames_per_second",
    "seconds",
)


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per epoch, epoch 0 being before training; numbers in full precision.

    `best` is the best objective so far, `round` and `learning_rate` those of the epoch itself,
    `train_loss` the mean over its batches, `seconds` without the evaluation.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def peak_memory(device: torch.device) -> dict[str, float]:
    """Largest memory so far in MB: of the process, and on the GPU where one is used."""
    unit = 1024**2 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    peaks = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if device.type == "cuda":
        peaks["gpu"] = torch.cuda.max_memory_allocated(device) / 1024**2
    return peaks


def machine() -> str:
    """Processor, and GPU where there is one; a training may go on elsewhere."""
    parts = environment()["machine"]
    return " + ".join(str(part) for part in (parts["processor"], parts["gpu"]) if part)


class EpochDisplay:
    """Epochs as they pass: one bar on a terminal, one plain line per epoch in a log."""

    def __init__(self, name: str, *, epochs: int) -> None:
        self._name = name
        self._epochs = epochs
        self._bar = (
            tqdm(total=epochs, desc=name, unit="epoch", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def resume(self, epoch: int) -> None:
        """Say that training goes on after `epoch`."""
        if self._bar is not None:
            self._bar.initial = self._bar.n = epoch  # the rate counts from here
            self._bar.refresh()
        else:
            self._line(f"goes on from its checkpoint after epoch {epoch}")

    def step(self, step: int, steps: int) -> None:
        """Show how far the epoch is."""
        if self._bar is not None:
            self._bar.set_description(f"{self._name} (step {step}/{steps})", refresh=False)
            self._bar.update(0)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show a finished epoch, given its line of the history."""
        text = f"correlation {row['objective']:.4f} (best {row['best']:.4f})"
        if row["epoch"]:
            text = (
                f"loss {row['train_loss']:.5g}, {text}, round {row['round']}, "
                f"learning rate {row['learning_rate']:.3g}, {row['frames_per_second']:.0f} frames/s"
            )
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(min(1, row["epoch"]))
        else:
            self._line(f"epoch {row['epoch']}/{self._epochs}: {text}, {row['seconds']:.1f} s")

    def _line(self, text: str) -> None:
        print(f"{self._name} {text}", file=sys.stderr, flush=True)
