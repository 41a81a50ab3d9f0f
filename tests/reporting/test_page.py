"""The page: whole, self-contained, safe against what titles hold, and clean in a real browser."""

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from sensorium_models.reporting import ensemble_size, leaderboard, style, tables, training_curves
from sensorium_models.reporting.page import (
    SECTIONS,
    ProtocolFacts,
    StudySummary,
    SystemFacts,
    write_page,
)
from sensorium_models.reporting.score_tables import leaderboard_table, members_table

EVIL = "<script>alert('x')</script> & \"quoted\""


def _summary(**changes: object) -> StudySummary:
    facts: dict[str, object] = {
        "title": "A study",
        "simulated": True,
        "protocols": {"open": ProtocolFacts("What everybody can check.", ["A"], ["oracle"])},
        "animals": {"A": 7863, "B": 104},
        "systems": {
            "viv1t": SystemFacts("ViV1T", ["seed8", "seed16"], "Li et al.", {"open": "clean"})
        },
        "versions": {"torch": "2.13.0"},
        "commit": "c0ffee",
        "uncommitted_changes": True,
        "run_dates": "2026-03-01",
        "machines": ["Some processor"],
        "facts": {"Score unit": "per_frame_published"},
    }
    return StudySummary(**(facts | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def saved_results(
    made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """Saved figures and tables of a study with all systems."""
    tmp_path = tmp_path_factory.mktemp("results")
    members = dict.fromkeys(made.titles, 3)
    board = made.board(members, neurons=3)
    drawings = {
        "leaderboard_open": leaderboard.draw(board, titles=made.titles, simulated=True),
        "ensemble_size_open": ensemble_size.draw(
            {"viv1t": made.curve(3)}, titles=made.titles, protocol="open", simulated=True
        ),
        "training_curves_clean": training_curves.draw(
            {"viv1t": {"seed8": made.history(20, 1)}},
            titles={"viv1t": EVIL},
            training_set="clean",
            simulated=True,
        ),
    }
    figures = []
    for name, drawing in drawings.items():
        figures.append(tmp_path / f"{name}.png")
        style.save(drawing, tmp_path / f"{name}.pdf", figures[-1])
    saved = []
    for name, table in {
        "leaderboard_open": leaderboard_table(
            board, titles=made.titles | {"viv1t": EVIL}, simulated=True, reliable_variance=0.15
        ),
        "members_open": members_table(board, records={}, titles=made.titles),
    }.items():
        csv = tmp_path / f"table_{name}.csv"
        tables.save(table, csv=csv, markdown=csv.with_suffix(".md"), latex=csv.with_suffix(".tex"))
        saved.append(tables.record_file(csv))
    return SimpleNamespace(figures=figures, tables=saved)


@pytest.fixture
def results(saved_results: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """The saved results with lists and an output folder of the test's own."""
    return SimpleNamespace(
        figures=list(saved_results.figures), tables=list(saved_results.tables), folder=tmp_path
    )


class _Parser(HTMLParser):
    """Collects what a page refers to, its headings, and whether every tag is closed in order."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.identifiers: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.links.append((tag, name, value or ""))
            if name == "id":
                self.identifiers.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def _parsed(path: Path) -> _Parser:
    parser = _Parser()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == []
    return parser


def _write(results: SimpleNamespace, **changes: object) -> Path:
    output: Path = results.folder / "report.html"
    write_page(output, summary=_summary(**changes), figures=results.figures, tables=results.tables)
    return output


def test_page_is_self_contained(results: SimpleNamespace) -> None:
    output = _write(results)
    parser = _parsed(output)
    assert "script" not in parser.tags
    for tag, name, target in parser.links:
        inside = target.startswith("data:") or (tag == "a" and target.startswith("#"))
        assert inside, f"{tag} {name} refers to {target[:80]}"
    assert "url(" not in output.read_text()
    assert "@import" not in output.read_text()
    assert output.stat().st_size < 4e6


def test_page_is_navigable(results: SimpleNamespace) -> None:
    parser = _parsed(_write(results))
    targets = [target[1:] for tag, _, target in parser.links if tag == "a"]
    assert len(set(parser.identifiers)) == len(parser.identifiers)
    assert set(targets) <= set(parser.identifiers)
    assert {"study", *SECTIONS, "figure-leaderboard_open", "table-table_members_open"} <= set(
        targets
    )


def test_page_holds_the_very_figures(results: SimpleNamespace) -> None:
    text = _write(results).read_text()
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert {base64.b64decode(data) for data in embedded} == {
        path.read_bytes() for path in results.figures
    }


def test_page_says_what_was_run(results: SimpleNamespace) -> None:
    text = " ".join(_parsed(_write(results)).text.split())
    for wanted in (
        "SIMULATED RECORDINGS",
        "1 system, 2 members, 2 animals, 7,967 neurons, protocol open.",
        "A (7,863), B (104)",
        "seed8, seed16",
        "clean (open)",
        "git commit c0ffee, with changes that were not committed",
        "torch 2.13.0",
        "2026-03-01; Some processor",
        "per_frame_published",
        "Published values are from the competition",
    ):
        assert wanted in text, wanted
    assert "SIMULATED" not in _parsed(_write(results, simulated=False)).text.split("Scores")[0]


def test_hostile_titles_stay_text(results: SimpleNamespace) -> None:
    output = _write(
        results,
        title=EVIL,
        animals={EVIL: 3},
        protocols={EVIL: ProtocolFacts(EVIL)},
        systems={EVIL: SystemFacts(EVIL, [EVIL], EVIL)},
        facts={EVIL: EVIL},
        commit=EVIL,
    )
    parser = _parsed(output)
    assert "script" not in parser.tags
    assert "<script" not in output.read_text()
    assert parser.text.count(EVIL) >= 10


def test_sections_without_content_say_so(results: SimpleNamespace, tmp_path: Path) -> None:
    text = _parsed(_write(results)).text
    assert SECTIONS["traces"].absent in text
    assert SECTIONS["scores"].absent not in text
    empty = tmp_path / "empty.html"
    write_page(
        empty,
        summary=_summary(
            animals={}, systems={}, protocols={}, versions={}, commit="", run_dates=""
        ),
        figures=[],
        tables=[],
        notes={"traces": "The predictions were not kept."},
    )
    text = " ".join(_parsed(empty).text.split())
    assert "The predictions were not kept." in text
    assert all((kind.absent in text) == (name != "traces") for name, kind in SECTIONS.items())
    assert "not recorded" in text


def test_a_new_family_gets_its_section_without_a_change(results: SimpleNamespace) -> None:
    with style.look():
        figure = style.new_figure(height=1.0)
    drawing = style.Drawing(
        figure, title="New", caption="n = 1.", alternative="Nothing.", section="retinotopic_maps"
    )
    path = results.folder / "new.png"
    style.save(drawing, path.with_suffix(".pdf"), path)
    results.figures.append(path)
    parser = _parsed(_write(results))
    assert "Retinotopic maps" in parser.text
    assert "retinotopic_maps" in parser.identifiers


def test_same_results_same_page(results: SimpleNamespace) -> None:
    first = _write(results).read_bytes()
    results.figures.reverse()
    assert _write(results).read_bytes() == first


def test_a_missing_table_is_named(results: SimpleNamespace) -> None:
    results.tables.append(results.folder / "gone.json")
    output = results.folder / "report.html"
    with pytest.raises(FileNotFoundError, match=r"gone\.json is missing"):
        _write(results)
    assert not output.exists()


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--window-size=1280,2000",
)


def _console(page: Path, profile: Path) -> list[str]:
    """Open a page in Chromium; what its console said. The page must end up in the dump."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "</html>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed (apt-get install chromium)")
def test_page_opens_without_console_messages(results: SimpleNamespace) -> None:
    folder = results.folder
    broken = folder / "broken.html"
    broken.write_text("<!DOCTYPE html><html><script>undefined_name.x</script></html>")
    assert _console(broken, folder / "one"), "the check must see an error where there is one"
    assert _console(_write(results), folder / "two") == []
