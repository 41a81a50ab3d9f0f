"""The report page: one HTML file with every figure and table of a study inside, readable offline.

It knows no figure by name: it shows whatever figures and tables were saved, each in the
section that it names, so a new figure family is one module and nothing here changes.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sensorium_models import files
from sensorium_models.reporting import published, style
from sensorium_models.reporting.tables import TableRecord, read_record

# A table with more rows scrolls in a window of its own on a screen; on paper it is whole.
LONG_TABLE_ROWS = 24
TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True)
class SectionKind:
    """A part of the page: what it is called, what it shows, and the sentence if it has nothing."""

    title: str
    introduction: str
    absent: str


# In the order of the page. A figure or table that names another section gets one at the end.
SECTIONS: dict[str, SectionKind] = {
    "scores": SectionKind(
        "Scores",
        "Correlation between predicted and recorded responses, per protocol. Values of two "
        "protocols are not comparable and never share a column.",
        "No scores yet: nothing has been scored in this study. Build the target scores, then the "
        "report again.",
    ),
    "ensemble": SectionKind(
        "Ensemble size",
        "How much is gained by averaging more members.",
        "Not shown: no system of this study has more than one member with cross-moments.",
    ),
    "traces": SectionKind(
        "Predicted and recorded responses",
        "What a score looks like: traces of single neurons during one test video.",
        "Not shown: no predictions of trials with public responses were kept.",
    ),
    "training": SectionKind(
        "Training",
        "How each member was trained, and what it cost.",
        "Not shown: no training histories or records of members were found.",
    ),
    "readouts": SectionKind(
        "Readout positions",
        "Where the neurons of trained networks look, and how that follows the cortex.",
        "Not shown: no member was trained or imported.",
    ),
    "reproduction": SectionKind(
        "Reproduction",
        "Every published number, ours where there is one, and whether the two agree. A verdict is "
        "given only where both were measured on the same neurons and trials.",
        "Not shown: no ledger was written.",
    ),
    "leakage": SectionKind(
        "Leakage",
        "Which videos several animals or tiers share, and what is therefore left out of the scores "
        "of each member.",
        "Not shown: nothing was split into training and test trials.",
    ),
    "recordings": SectionKind(
        "Recordings",
        "What each recording holds and how good it is.",
        "Not shown: no quality sheet was drawn.",
    ),
    "lineage": SectionKind(
        "Lineage",
        "Where every number comes from: from a member to its weights, its configuration, its "
        "recordings, and the archives that these were made from.",
        "Not shown: no member was trained or imported.",
    ),
}


@dataclass(frozen=True)
class ProtocolFacts:
    """A protocol as the page explains it."""

    description: str
    animals: Sequence[str] = ()
    tiers: Sequence[str] = ()


@dataclass(frozen=True)
class SystemFacts:
    """A system as the page lists it; `training_sets` is protocol -> training set."""

    title: str
    members: Sequence[str]
    citation: str = ""
    training_sets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudySummary:
    """What was run, as stated at the top of the page, from configuration and run records.

    Attributes:
        title: the study's name.
        simulated: whether any recording is simulated; puts a banner over the page.
        protocols: name -> facts.
        animals: animal -> number of neurons.
        systems: name -> facts, in the order of the study.
        versions: package -> version, as in the run records.
        commit: git commit(s) that the members were trained with; "" where unknown.
        uncommitted_changes: whether any run had changes that are in no commit.
        run_dates: when the runs took place, from their records; "" where unknown.
        machines: on which machines, from the records.
        facts: anything else to state, label -> text (score unit, scored frames, ...).
    """

    title: str
    simulated: bool
    protocols: Mapping[str, ProtocolFacts]
    animals: Mapping[str, int]
    systems: Mapping[str, SystemFacts]
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    uncommitted_changes: bool = False
    run_dates: str = ""
    machines: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _ShownFigure:
    anchor: str
    number: int
    record: style.FigureRecord
    data: str
    pixels_wide: int
    pixels_high: int


@dataclass(frozen=True)
class _ShownTable:
    anchor: str
    number: int
    record: TableRecord


@dataclass(frozen=True)
class _Section:
    anchor: str
    kind: SectionKind
    figures: Sequence[_ShownFigure]
    tables: Sequence[_ShownTable]


def write_page(
    output: Path,
    *,
    summary: StudySummary,
    figures: Sequence[Path],
    tables: Sequence[Path],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write `report.html`, self-contained: no script, no font, no picture from outside.

    Args:
        figures: the saved PNG files (each with its JSON beside it, see `style.save`).
        tables: the JSON files of saved tables (see `tables.save`).
        notes: section -> a sentence shown under its heading, for what this study has to say about
            it (for example why a section is empty).

    Raises:
        FileNotFoundError: a figure without its caption file, or a table that is not there.
    """
    files.write_text(
        output, render(summary=summary, figures=figures, tables=tables, notes=notes or {})
    )


def render(
    *,
    summary: StudySummary,
    figures: Sequence[Path],
    tables: Sequence[Path],
    notes: Mapping[str, str],
) -> str:
    """The page as text; see `write_page`."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,  # titles come from configuration files; none of them is trusted as HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE.name).render(
        summary=summary,
        sections=_sections(figures, tables),
        notes=notes,
        simulated_label=style.SIMULATED_LABEL,
        published_note=published.NOTE,
        long_table=LONG_TABLE_ROWS,
        neurons=sum(summary.animals.values()),
        members=sum(len(system.members) for system in summary.systems.values()),
    )


def _sections(figures: Sequence[Path], tables: Sequence[Path]) -> list[_Section]:
    drawn = sorted(
        ((style.read_record(path), Path(path)) for path in figures),
        key=lambda item: (item[0].order, item[1].name),
    )
    tabulated = sorted(
        ((read_record(path), Path(path)) for path in tables),
        key=lambda item: (item[0].order, item[1].name),
    )
    named = [record.section for record, _ in drawn] + [record.section for record, _ in tabulated]
    kinds = dict(SECTIONS)
    for name in named:
        kinds.setdefault(name, SectionKind(name.replace("_", " ").capitalize(), "", ""))
    sections = []
    figure_number = table_number = 0
    for name, kind in kinds.items():
        shown_figures, shown_tables = [], []
        for record, path in drawn:
            if record.section == name:
                figure_number += 1
                shown_figures.append(_shown_figure(record, path, figure_number))
        for table, path in tabulated:
            if table.section == name:
                table_number += 1
                shown_tables.append(_ShownTable(f"table-{path.stem}", table_number, table))
        sections.append(_Section(name, kind, shown_figures, shown_tables))
    return sections


def _shown_figure(record: style.FigureRecord, png: Path, number: int) -> _ShownFigure:
    return _ShownFigure(
        anchor=f"figure-{png.stem}",
        number=number,
        record=record,
        data=base64.b64encode(png.read_bytes()).decode("ascii"),
        # In CSS pixels (96 to the inch), a quarter larger than in print, for screens.
        pixels_wide=round(record.width_inches * 120),
        pixels_high=round(record.height_inches * 120),
    )
