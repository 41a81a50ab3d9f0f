"""One look for every figure: sizes of a two-column paper, one colour per system, repeatable files.

Palette: Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, safe for colour-blind readers. A
small JSON file beside each figure holds its title and caption for the report page.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sensorium_models import files

ONE_COLUMN_INCHES = 3.35  # 85 mm
TWO_COLUMNS_INCHES = 6.93  # 176 mm
PIXELS_PER_INCH = 300

INK = "#222222"
MUTED = "#6b6b6b"
FAINT = "#c6c6c6"
WARNING = "#B03A00"

SIMULATED_LABEL = "SIMULATED RECORDINGS"

# A system keeps its colour in every study and every figure.
SYSTEM_COLOURS = {
    "factorized_baseline": "#0072B2",
    "gru_baseline": "#56B4E9",
    "dwiseneuro": "#D55E00",
    "dynamic_v1fm": "#009E73",
    "viv1t": "#CC79A7",
    "viv1t_2025": "#E69F00",
    "linear_nonlinear": "#882255",
}
# A type of stimulus keeps its colour as well, and has one name for readers.
STIMULUS_COLOURS = {
    "movie": "#0072B2",
    "pink_noise": "#CC79A7",
    "gaussian_dots": "#E69F00",
    "random_dots": "#D55E00",
    "gabor": "#009E73",
    "images": "#56B4E9",
    "unknown": "#999999",
}
STIMULUS_LABELS = {
    "movie": "natural movie",
    "pink_noise": "pink noise",
    "gaussian_dots": "Gaussian dots",
    "random_dots": "random dots",
    "gabor": "drifting Gabor",
    "images": "natural images",
}
# For systems of the user's own: most from Paul Tol's "muted" scheme, as is the control's above.
FURTHER_COLOURS = (
    *("#332288", "#117733", "#999933", "#661100", "#AA4499"),
    *("#44AA99", "#CC6677", "#88CCEE", "#DDCC77", "#888888"),
)

_LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text, editable and searchable
    "mathtext.fontset": "dejavusans",
    "mathtext.default": "regular",
}


@dataclass(frozen=True)
class Drawing:
    """A drawn figure with what a reader needs beside it.

    `section` names the part of the report page that it belongs to (`page.SECTIONS`), `order` its
    place within that part; `alternative` describes it in a sentence for readers who cannot see it.
    """

    figure: Figure
    title: str
    caption: str
    alternative: str
    section: str
    order: int = 0


@dataclass(frozen=True)
class FigureRecord:
    """The JSON file beside a saved figure."""

    title: str
    caption: str
    alternative: str
    section: str
    order: int
    width_inches: float
    height_inches: float


@contextmanager
def look() -> Iterator[None]:
    """Within this context every new artist has the house look."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


def new_figure(*, width: float = TWO_COLUMNS_INCHES, height: float) -> Figure:
    """An empty figure of `width` x `height` inches whose layout keeps labels from colliding."""
    if not (width > 0 and height > 0):
        raise ValueError(f"A figure needs a positive size in inches, not {width} x {height}.")
    # Whole pixels at `PIXELS_PER_INCH`.
    figure = Figure(figsize=(round(width, 2), round(height, 2)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colours(systems: Sequence[str]) -> dict[str, str]:
    """One colour per system: fixed for known ones, the next free one for others, in this order."""
    own = [name for name in dict.fromkeys(systems) if name not in SYSTEM_COLOURS]
    assigned = {name: FURTHER_COLOURS[i % len(FURTHER_COLOURS)] for i, name in enumerate(own)}
    return {name: SYSTEM_COLOURS.get(name) or assigned[name] for name in systems}


def stimulus_label(stimulus_type: str) -> str:
    """What a reader calls a type of stimulus."""
    return STIMULUS_LABELS.get(stimulus_type, stimulus_type.replace("_", " "))


def ordered_types(stimulus_types: Iterable[str]) -> list[str]:
    """Types of stimuli in the order of `STIMULUS_COLOURS`, others after them by name."""
    present, known = set(stimulus_types), list(STIMULUS_COLOURS)
    return [t for t in known if t in present] + sorted(present - set(known))


def label(figure: Figure, text: str, *, simulated: bool) -> None:
    """Say above the panels what the figure is about, and whether its recordings are simulated."""
    figure.suptitle(
        f"{SIMULATED_LABEL}  ·  {text}" if simulated else text,
        x=0.995,
        ha="right",
        fontsize=6.5,
        fontweight="bold" if simulated else "normal",
        color=WARNING if simulated else MUTED,
    )


def explained(sentence: str, *, title: str, section: str, text: str, simulated: bool) -> Drawing:
    """A figure that says why there is nothing to draw, so that a report never lacks a file."""
    with look():
        figure = new_figure(height=0.8)
        figure.text(0.01, 0.3, sentence, color=MUTED, fontsize=7, wrap=True)
        label(figure, text, simulated=simulated)
    return Drawing(figure, title=title, caption=sentence, alternative=sentence, section=section)


def save(drawing: Drawing, pdf: Path, png: Path) -> None:
    """Write the figure as vector PDF and as PNG, and its caption as JSON beside the PNG.

    The same drawing gives the same bytes: no date, no version is stored in the files.
    """
    width, height = drawing.figure.get_size_inches()
    with look():
        with files.replacing(Path(pdf)) as temporary:
            drawing.figure.savefig(
                temporary,
                format="pdf",
                metadata={
                    "Title": drawing.title,
                    "CreationDate": None,
                    "Creator": None,
                    "Producer": None,
                },
            )
        with files.replacing(Path(png)) as temporary:
            drawing.figure.savefig(
                temporary,
                format="png",
                dpi=PIXELS_PER_INCH,
                metadata={"Title": drawing.title, "Software": None},
            )
    record = FigureRecord(
        title=drawing.title,
        caption=drawing.caption,
        alternative=drawing.alternative,
        section=drawing.section,
        order=drawing.order,
        width_inches=round(float(width), 3),
        height_inches=round(float(height), 3),
    )
    files.write_json(caption_file(png), asdict(record))


def caption_file(png: Path) -> Path:
    """Where `save` keeps title and caption of a figure."""
    return Path(png).with_suffix(".json")


def read_record(png: Path) -> FigureRecord:
    """Title and caption of a saved figure.

    Raises:
        FileNotFoundError: the figure was saved without its JSON file, or that file is gone.
    """
    path = caption_file(png)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: it holds the caption of {Path(png).name}. Draw that figure again."
        )
    return FigureRecord(**json.loads(path.read_text(encoding="utf-8")))
