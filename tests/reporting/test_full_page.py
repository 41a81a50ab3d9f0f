"""The page of the full study: small enough to open at once, whole on paper, readable on a phone."""

import base64
import html
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from sensorium_models.evaluation.leaderboard import leaderboard as make_board
from sensorium_models.reporting import (
    composition,
    leaderboard,
    lineage,
    reproduction,
    scores_by_type,
    seed_stability,
    style,
    tables,
)
from sensorium_models.reporting.counterparts import ProtocolResults
from sensorium_models.reporting.page import (
    LONG_TABLE_ROWS,
    SECTIONS,
    ProtocolFacts,
    StudySummary,
    SystemFacts,
    write_page,
)
from sensorium_models.reporting.score_tables import leaderboard_table, members_table

ANIMALS = "ABCDEFGHIJ"
# Members of the published systems: 71 under each protocol, 105 trainings.
MEMBERS = {
    "gru_baseline": 1,
    "factorized_baseline": 14,
    "dwiseneuro": 14,
    "dynamic_v1fm": 31,
    "viv1t": 5,
    "viv1t_2025": 5,
    "linear_nonlinear": 1,
}
PHONE_WIDTH = 390
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDS_BROWSER = pytest.mark.skipif(
    BROWSER is None, reason="Chromium is not installed (apt-get install chromium)"
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--enable-logging=stderr"),
)


def _full_scores(made: SimpleNamespace, protocol: str) -> pd.DataFrame:
    """Every member with two neurons for each animal and tier; the generator knows 14 names."""
    parts = []
    for system, count in MEMBERS.items():
        scores = made.scores(
            {system: min(count, 14)}, neurons=2, animals=ANIMALS, protocol=protocol
        )
        parts.append(scores)
        for more in range(14, count):
            one = scores[scores["member"] == "seed8"]
            parts.append(one.assign(member=f"seed{more}"))
    return pd.concat(parts, ignore_index=True)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full_page(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The page with all figures and tables of ten animals, seven systems and 71 members."""
    folder = tmp_path_factory.mktemp("full")
    titles = made.titles
    figures: list[Path] = []
    records: list[Path] = []

    def save(names: list[str], drawing: style.Drawing) -> None:
        """Drawn once; what differs between two of a family does not matter for a page's size."""
        first = folder / f"{names[0]}.png"
        style.save(drawing, first.with_suffix(".pdf"), first)
        for name in names:
            figures.append(folder / f"{name}.png")
            if name != names[0]:
                shutil.copy(first, figures[-1])
                shutil.copy(style.caption_file(first), style.caption_file(figures[-1]))

    def keep(names: list[str], table: tables.Table) -> None:
        for name in names:
            csv = folder / f"table_{name}.csv"
            markdown, latex = csv.with_suffix(".md"), csv.with_suffix(".tex")
            tables.save(table, csv=csv, markdown=markdown, latex=latex)
            records.append(tables.record_file(csv))

    run = made.record("viv1t", 8)
    scores = _full_scores(made, "open")
    board = make_board(scores)
    ensembles = scores[scores["member"] == "ensemble"]
    means = ensembles.groupby(["system", "tier", "animal"])["single_trial_correlation"].mean()
    by_animal = means.rename("value").reset_index()
    results = {name: ProtocolResults(board, by_animal, {}) for name in ("competition", "open")}
    options = {"titles": titles, "simulated": False}

    def both(name: str) -> list[str]:
        return [f"{name}_competition", f"{name}_open"]

    save(both("leaderboard"), leaderboard.draw(board, **options))
    by_type = both("scores_by_type") + both("neuron_distribution") + both("reliability")
    save(by_type, scores_by_type.draw(ensembles, **options))
    keep(both("leaderboard"), leaderboard_table(board, reliable_variance=0.15, **options))
    keep(both("members"), members_table(board, records={}, titles=titles))
    keep(both("seed_stability"), seed_stability.table(board, **options))
    weights = folder / "weights"
    weights.write_bytes(b"weights")
    members = {s: {f"seed{i}": run for i in range(count)} for s, count in MEMBERS.items()}
    table = lineage.members_table(
        members,
        weights={s: dict.fromkeys(names, weights) for s, names in members.items()},
        recordings={},
        results=folder,
        titles=titles,
        training_set="clean",
    )
    keep(["lineage_published", "lineage_clean"], table)
    keep(
        ["reproduction"],
        reproduction.ledger(results, systems=list(MEMBERS), titles=titles, simulated=False),
    )
    trials = pd.DataFrame(
        {"tier": "train", "stimulus_type": "movie", "frames": [300] * 350, "withheld": False}
    )
    recordings = [composition.Composition(animal, 7863, 30.0, trials) for animal in ANIMALS]
    save(
        [f"quality_{animal}" for animal in ANIMALS],
        composition.draw(recordings, tiers={"train": "train"}, simulated=False),
    )
    page = folder / "report.html"
    write_page(
        page,
        summary=StudySummary(
            title="SENSORIUM 2023",
            simulated=False,
            protocols={p: ProtocolFacts("A protocol.", list(ANIMALS)) for p in results},
            animals=dict.fromkeys(ANIMALS, 7863),
            systems={
                s: SystemFacts(titles[s], [f"seed{i}" for i in range(count)], "A paper.")
                for s, count in MEMBERS.items()
            },
        ),
        figures=figures,
        tables=records,
    )
    return SimpleNamespace(path=page, text=page.read_text(), figures=figures, tables=records)


def test_full_page_is_bounded_by_what_it_shows(full_page: SimpleNamespace) -> None:
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', full_page.text)
    assert len(embedded) == len(full_page.figures)
    pictures = sum(len(data) for data in embedded)
    # Pictures once each, a third larger as text; all else is less than one of them.
    assert pictures <= sum(4 * (path.stat().st_size // 3 + 1) for path in full_page.figures)
    assert len(full_page.text) - pictures < 600_000
    # What a browser lays out: a few elements per table cell, nothing that grows with neurons.
    cells = sum(
        len(record.rows) * len(record.columns)
        for record in map(tables.read_record, full_page.tables)
    )
    elements = len(re.findall(r"<[a-z]", full_page.text))
    assert elements < 2 * cells + 1500
    assert elements < 15_000


def test_full_page_opens_without_waiting_for_anything(full_page: SimpleNamespace) -> None:
    assert "<script" not in full_page.text
    assert "http" not in re.sub(r'base64,[^"]+', "", full_page.text).replace("https://", "http")
    # Sizes are known before pictures are decoded, so that nothing moves when they are.
    for tag in re.findall(r"<img [^>]*>", re.sub(r'base64,[^"]+', "", full_page.text)):
        assert re.search(r'width="\d+"\s+height="\d+"', tag)


def test_full_page_lists_all_its_contents(full_page: SimpleNamespace) -> None:
    navigation = full_page.text.split("<nav")[1].split("</nav>")[0]
    anchors = re.findall(r'href="#([^"]+)"', navigation)
    assert len(anchors) == 1 + len(SECTIONS) + len(full_page.figures) + len(full_page.tables)
    assert set(anchors) <= set(re.findall(r'id="([^"]+)"', full_page.text))


def test_every_member_is_on_the_full_page(full_page: SimpleNamespace) -> None:
    members = full_page.text.split('id="table-table_members_open"')[1].split("</table>")[0]
    assert members.count("<tr>") >= sum(MEMBERS.values()) == 71


def test_long_tables_scroll_on_a_screen_and_are_whole_on_paper(full_page: SimpleNamespace) -> None:
    tall = re.findall(r'<div class="scroll tall"[^>]*aria-label="([^"]+)"', full_page.text)
    long = [
        html.escape(record.title)
        for record in map(tables.read_record, full_page.tables)
        if len(record.rows) > LONG_TABLE_ROWS
    ]
    assert sorted(tall) == sorted(long)
    paper = full_page.text.split("@media print")[1]
    assert "max-height: none" in paper.split(".scroll")[1].split("}")[0]


def _browse(page: Path, folder: Path, *options: str) -> str:
    """Open a page in Chromium and return its content after all scripts; no console message."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


# A frame as wide as a phone, which tells how wide its content became and what sticks out.
_PHONE = """<!DOCTYPE html><html><body><iframe width="{width}" height="800"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument;
  const inside = (e) => e.closest(".scroll, .figure-scroll, nav") !== null;
  const wide = [...page.body.querySelectorAll("*")].filter(
    (e) => !inside(e) && e.getBoundingClientRect().right > page.documentElement.clientWidth + 1);
  document.body.dataset.sideways =
    page.documentElement.scrollWidth - page.documentElement.clientWidth;
  document.body.dataset.wide = wide.map((e) => e.tagName + "." + e.className).join(" ");
  document.body.dataset.pictures = [...page.images].filter((i) => i.naturalWidth > 0).length;
}};
frame.srcdoc = new TextDecoder().decode(
  Uint8Array.from(atob("{page}"), (letter) => letter.charCodeAt(0)));
</script></body></html>"""


@NEEDS_BROWSER
def test_full_page_fits_a_phone(full_page: SimpleNamespace, tmp_path: Path) -> None:
    encoded = base64.b64encode(full_page.path.read_bytes()).decode()
    phone = tmp_path / "phone.html"
    phone.write_text(_PHONE.format(width=PHONE_WIDTH, page=encoded))
    found = _browse(phone, tmp_path, "--dump-dom", "--virtual-time-budget=20000")
    facts = dict(re.findall(r'data-(sideways|wide|pictures)="([^"]*)"', found))
    assert facts["wide"] == ""
    assert int(facts["sideways"]) == 0
    assert int(facts["pictures"]) == len(full_page.figures)


@NEEDS_BROWSER
def test_full_page_prints(full_page: SimpleNamespace, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    _browse(full_page.path, tmp_path, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    different = {path.read_bytes() for path in full_page.figures}
    assert len(re.findall(rb"/Subtype\s*/Image\b", content)) >= len(different)
    # Not more paper than a page for each figure and for every fifteen rows.
    rows = sum(len(tables.read_record(path).rows) for path in full_page.tables)
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert len(full_page.figures) / 3 < pages < len(full_page.figures) + rows / 15
