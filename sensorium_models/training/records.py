"""What a training shows while it runs (a bar or lines) and leaves behind (its history)."""

import csv
import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tensorboardX import SummaryWriter
from tqdm import tqdm

from sensorium_models import files
from sensorium_models.progress import terminal

HISTORY_COLUMNS = (
    "epoch",
    "round",
    "learning_rate",
    "train_loss",
    "objective",
    "best",
    "frames_per_second",
    "seconds",
    "waiting_seconds",
)


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per epoch, epoch 0 being before training; numbers in full precision.

    `best` is the best objective so far, `round` and `learning_rate` those of the epoch itself,
    `train_loss` the mean over its batches, `seconds` without the evaluation,
    of which `waiting_seconds` passed until batches were read.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


class Events:
    """The history as TensorBoard shows it, while a training runs.

    A restart begins the folder anew from the history, so that no epoch shows twice.
    """

    def __init__(
        self, folder: Path, rows: Sequence[Mapping[str, Any]], *, written: bool = True
    ) -> None:
        """`written`: whether this process writes; others do nothing."""
        self._folder = folder
        self._writer: SummaryWriter | None = None
        if written:
            shutil.rmtree(folder, ignore_errors=True)
            self._writer = SummaryWriter(str(folder))
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one line of the history; its numbers show by epoch."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish writing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def remove(self) -> None:
        """Delete the folder; the member is done and has its own."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def write_events(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The whole history of a finished member for TensorBoard, in a folder of its own."""
    Events(folder, rows).close()


class EpochDisplay:
    """Epochs as they pass: a bar on the terminal, and a plain line for each in the job's log."""

    def __init__(self, name: str, *, epochs: int, shown: bool = True) -> None:
        """`shown`: whether this process shows anything; others are silent."""
        self._name = name
        self._epochs = epochs
        screen = terminal() if shown else None
        self._logged = shown and not sys.stderr.isatty()
        self._bar = (
            tqdm(total=epochs, desc=name, unit="epoch", dynamic_ncols=True, file=screen)
            if screen is not None
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
        if self._logged:
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
        if self._logged:
            self._line(f"epoch {row['epoch']}/{self._epochs}: {text}, {row['seconds']:.1f} s")

    def _line(self, text: str) -> None:
        print(f"{self._name} {text}", file=sys.stderr, flush=True)
