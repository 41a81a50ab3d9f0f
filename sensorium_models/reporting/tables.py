"""A table of the report in every form that is needed: CSV, Markdown, LaTeX, and JSON for the page.

The CSV holds every column with full precision; the other forms hold the columns chosen for reading,
formatted, under group headings. LaTeX needs the packages booktabs and graphicx only.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from sensorium_models import files

NO_VALUE = "–"

Kind = Literal["text", "count", "score", "fine", "spread", "duration", "gigabytes"]


@dataclass(frozen=True)
class Column:
    """A column for reading: `key` of the frame, heading, how to write values, group heading above.

    Kind "fine" is a score with four digits; "spread" is a score, followed by ± the frame's column
    `{key}_sd` where there is one.
    """

    key: str
    label: str
    kind: Kind = "text"
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table with what a reader needs beside it; `section` and `order` place it on the page.

    `row_heading` names a column whose value stands above the rows that share it, not in each row.
    """

    frame: pd.DataFrame
    columns: Sequence[Column]
    title: str
    caption: str
    section: str
    order: int = 0
    row_heading: str | None = None

    def __post_init__(self) -> None:
        wanted = [column.key for column in self.columns]
        wanted += [self.row_heading] if self.row_heading else []
        missing = [key for key in wanted if key not in self.frame.columns]
        if missing:
            raise ValueError(
                f"Table {self.title!r} should show the column {missing[0]!r}, which it lacks; "
                f"it has {', '.join(map(str, self.frame.columns))}."
            )


@dataclass(frozen=True)
class ColumnRecord:
    """Heading of a column on the page and whether numbers stand in it."""

    label: str
    numeric: bool


@dataclass(frozen=True)
class GroupRecord:
    """Heading above neighbouring columns; the label is empty where they have none."""

    label: str
    columns: int


@dataclass(frozen=True)
class TableRecord:
    """What the page shows of a table: everything as text, formatted."""

    title: str
    caption: str
    section: str
    order: int
    columns: Sequence[ColumnRecord]
    groups: Sequence[GroupRecord]
    rows: Sequence[Sequence[str]]
    row_headings: Sequence[str]  # one per row; empty texts where the table has none

    def blocks(self) -> list[tuple[str, list[Sequence[str]]]]:
        """Neighbouring rows under one heading."""
        pairs = groupby(zip(self.row_headings, self.rows, strict=True), key=lambda pair: pair[0])
        return [(heading, [row for _, row in block]) for heading, block in pairs]


def save(table: Table, *, csv: Path, markdown: Path, latex: Path) -> None:
    """Write the table in three forms, and beside the CSV as JSON for the page."""
    with files.replacing(Path(csv)) as temporary:
        table.frame.to_csv(temporary, index=False, lineterminator="\n")
    shown = record(table)
    files.write_text(Path(markdown), to_markdown(shown))
    files.write_text(Path(latex), to_latex(shown, label=Path(latex).stem))
    files.write_json(record_file(csv), asdict(shown))


def record_file(csv: Path) -> Path:
    """Where `save` keeps the form of a table that the page shows."""
    return Path(csv).with_suffix(".json")


def read_record(path: Path) -> TableRecord:
    """Read back the JSON form of a table.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} is missing: it holds a table of the report. Make it again."
        )
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    content["columns"] = [ColumnRecord(**column) for column in content["columns"]]
    content["groups"] = [GroupRecord(**group) for group in content["groups"]]
    return TableRecord(**content)


def record(table: Table) -> TableRecord:
    """The table formatted for reading."""
    groups = [
        GroupRecord(label, len(list(members)))
        for label, members in groupby(column.group for column in table.columns)
    ]
    return TableRecord(
        title=table.title,
        caption=table.caption,
        section=table.section,
        order=table.order,
        columns=[ColumnRecord(column.label, column.kind != "text") for column in table.columns],
        groups=groups,
        rows=[
            [_cell(column, row) for column in table.columns]
            for row in table.frame.to_dict(orient="records")
        ],
        row_headings=(
            table.frame[table.row_heading].astype(str).tolist()
            if table.row_heading
            else [""] * len(table.frame)
        ),
    )


def to_markdown(shown: TableRecord) -> str:
    """Title, table and caption.

    Markdown knows no headings over columns or rows: those over columns join the column's own, those
    over rows become a first column.
    """
    headings = [
        f"{group}: {column.label}" if group else column.label
        for column, group in zip(shown.columns, _group_of_columns(shown), strict=True)
    ]
    rule = ["---:" if column.numeric else ":---" for column in shown.columns]
    rows = list(shown.rows)
    if any(shown.row_headings):
        headings, rule = ["", *headings], [":---", *rule]
        rows = [[h, *row] for h, row in zip(shown.row_headings, rows, strict=True)]
    lines = [headings, rule, *rows]
    body = "\n".join("| " + " | ".join(_markdown(cell) for cell in line) + " |" for line in lines)
    return f"**{_markdown(shown.title)}**\n\n{body}\n\n{_markdown(shown.caption)}\n"


def to_latex(shown: TableRecord, *, label: str) -> str:
    """A booktabs table environment over two columns, no wider than the text."""
    alignment = "".join("r" if column.numeric else "l" for column in shown.columns)
    lines = [
        "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.",
        "\\begin{table*}",
        "\\centering",
        f"\\caption{{{_latex(shown.title)}. {_latex(shown.caption)}}}",
        f"\\label{{tab:{label.replace('_', '-')}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
    ]
    if any(group.label for group in shown.groups):
        cells, rules, first = [], [], 1
        for group in shown.groups:
            last = first + group.columns - 1
            cells.append(f"\\multicolumn{{{group.columns}}}{{c}}{{{_latex(group.label)}}}")
            if group.label:
                rules.append(f"\\cmidrule(lr){{{first}-{last}}}")
            first = last + 1
        lines += [" & ".join(cells) + " \\\\", " ".join(rules)]
    lines.append(" & ".join(_latex(column.label) for column in shown.columns) + " \\\\")
    for heading, rows in shown.blocks():
        lines.append("\\midrule")
        if heading:
            lines.append(
                f"\\multicolumn{{{len(shown.columns)}}}{{l}}{{\\textit{{{_latex(heading)}}}}} \\\\"
            )
        lines += [" & ".join(_latex(cell) for cell in row) + " \\\\" for row in rows]
    lines += ["\\bottomrule", "\\end{tabular}}", "\\end{table*}"]
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """A time span as a person would say it: 42 s, 3.1 min, 7.9 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _cell(column: Column, row: Mapping[Any, Any]) -> str:
    value = row[column.key]
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return NO_VALUE
    if column.kind == "count":
        return f"{int(value):,}"
    if column.kind == "score":
        return signed(value)
    if column.kind == "fine":
        return signed(value, digits=4)
    if column.kind == "spread":
        spread = row.get(f"{column.key}_sd")
        known = spread is not None and not math.isnan(spread)
        return f"{signed(value)} ± {spread:.3f}" if known else signed(value)
    if column.kind == "duration":
        return duration(float(value))
    if column.kind == "gigabytes":
        return f"{float(value):.1f} GB"
    return str(value)


def signed(value: float, digits: int = 3) -> str:
    """A score as tables show it: a true minus sign, no negative zero."""
    text = f"{float(value):.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _group_of_columns(shown: TableRecord) -> list[str]:
    return [group.label for group in shown.groups for _ in range(group.columns)]


def _markdown(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return escaped.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "ρ": r"$\rho$",
    "–": "--",
    "\n": " ",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
