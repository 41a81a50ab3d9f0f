"""How much a score depends on the seed: our members beside the published seeds (Table 5).

Published: Turishcheva et al. (2024), arXiv 2407.09100, Table 5, fourteen seeds of the factorized
baseline on the final test set of the main track.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import published, style
from sensorium_models.reporting.boards import METRIC_LABELS, TIER_LABELS, one_protocol
from sensorium_models.reporting.tables import Column, Table

# On the same trials as the published values, else on what comes nearest.
_TIERS = ("final_test_main", "live_test_main", "oracle")
_PUBLISHED_GROUP = f"Published ({published.PROTOCOL_LABEL})"
_MEAN, _SPREAD = "mean", "standard deviation"


@dataclass(frozen=True)
class SeedScores:
    """Scores by member name (index) and metric (columns), ours of one system and the published."""

    system: str
    published_system: str
    tier: str | None
    ours: pd.DataFrame
    theirs: pd.DataFrame


def gather(
    board: pd.DataFrame, *, published_as: Mapping[str, str] | None = None
) -> list[SeedScores]:
    """Every system of the board whose single seeds were published, with both sides' scores.

    Args:
        board: rows of ONE protocol, as `evaluation.leaderboard.leaderboard` returns them.
        published_as: system -> the published system of which it is a variation.

    Raises:
        ValueError: no rows, or rows of several protocols.
    """
    one_protocol(board)
    members = board[(board["member"] != ENSEMBLE) & board[METRICS[0]].notna()]
    found = []
    for system in dict.fromkeys(board["system"].astype(str)):
        name = (published_as or {}).get(system, system)
        theirs = published.seed_scores(name)
        if theirs.empty:
            continue
        own = members[members["system"] == system]
        tier = next((t for t in _TIERS if (own["tier"] == t).any()), None)
        ours = own[own["tier"] == tier].set_index("member")[list(METRICS)]
        found.append(SeedScores(system, name, tier, ours, theirs[list(METRICS)]))
    return found


def draw(
    board: pd.DataFrame,
    *,
    titles: Mapping[str, str],
    simulated: bool,
    published_as: Mapping[str, str] | None = None,
) -> style.Drawing:
    """One panel per metric: our members and the published seeds, each with mean and deviation.

    Says in a sentence where the study has no system whose seeds were published.
    """
    protocol = one_protocol(board)
    found = gather(board, published_as=published_as)
    title = f"Stability over seeds, protocol {protocol}"
    if not found:
        return style.explained(
            "No seeds to compare: single seeds were published for the factorized baseline only, "
            "and neither it nor a variation of it is in this study.",
            title=title,
            section="scores",
            text=f"protocol {protocol}",
            simulated=simulated,
        )
    seeds = _seeds(found)
    colours = style.colours([*titles, *(f.system for f in found)])
    with style.look():
        figure = style.new_figure(height=2.55)
        panels = figure.subplots(1, len(METRICS))
        for axes, metric in zip(panels, METRICS, strict=True):
            _points(axes, found[0].theirs[metric], seeds, None)
            for scores in found:
                _points(axes, scores.ours[metric], seeds, colours[scores.system])
            axes.set_xticks(
                range(len(seeds)),
                [s.removeprefix("seed") for s in seeds],
                rotation=90,
            )
            axes.set_xlim(-0.6, len(seeds) - 0.4)
            axes.set_xlabel("Seed")
            axes.set_ylabel(METRIC_LABELS[metric])
            axes.yaxis.set_major_locator(MaxNLocator(6))
            axes.grid(axis="y")
        handles = [
            Line2D(
                [],
                [],
                ls="-",
                lw=1.0,
                marker="o",
                ms=4,
                color=colours[s.system],
                label=f"{titles.get(s.system, s.system)}{_tier_words(s.tier)}",
            )
            for s in found
            if len(s.ours)
        ]
        handles.append(
            Line2D(
                [],
                [],
                ls="--",
                lw=0.8,
                marker="o",
                ms=4,
                mfc="none",
                color=style.INK,
                label="published (F–J, final test set)",
            )
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        style.label(figure, f"protocol {protocol}", simulated=simulated)
    return style.Drawing(
        figure=figure,
        title=title,
        caption=" ".join(_sentences(found, titles, published_as or {}, simulated=simulated)),
        alternative=(
            f"Dot plots of the scores of {len(seeds)} seeds, ours and published; the values are in "
            "the table of the same name."
        ),
        section="scores",
        order=5,
    )


def table(
    board: pd.DataFrame,
    *,
    titles: Mapping[str, str],
    simulated: bool,
    published_as: Mapping[str, str] | None = None,
) -> Table:
    """One row per seed, then mean and standard deviation (ddof 1), published and ours.

    Empty, with a sentence in its caption, where the study has no system whose seeds were published.
    """
    protocol = one_protocol(board)
    found = gather(board, published_as=published_as)
    rows = []
    for scores in found:
        for seed in [*_seeds([scores]), _MEAN, _SPREAD]:
            row: dict[str, str | float | None] = {
                "protocol": protocol,
                "system": scores.system,
                "system_title": titles.get(scores.system, scores.system),
                "tier": scores.tier,
                "seed": seed.removeprefix("seed"),
            }
            for metric in METRICS:
                row[metric] = _value(scores.ours[metric], seed)
                row[f"published_{metric}"] = _value(scores.theirs[metric], seed)
            rows.append(row)
    ours = "This study"
    columns = [
        Column("seed", "seed"),
        *(
            Column(f"published_{metric}", label, "fine", _PUBLISHED_GROUP)
            for metric, label in zip(METRICS, ("single-trial", "to average"), strict=True)
        ),
        *(
            Column(metric, label, "fine", ours)
            for metric, label in zip(METRICS, ("single-trial", "to average"), strict=True)
        ),
    ]
    frame = pd.DataFrame(rows, columns=None if rows else _EMPTY_COLUMNS)
    sentences = (
        _sentences(found, titles, published_as or {}, simulated=simulated)
        if found
        else ["No system of this study has published single seeds."]
    )
    return Table(
        frame=frame,
        columns=columns,
        title=f"Stability over seeds, protocol {protocol}",
        caption=" ".join(sentences),
        section="scores",
        order=2,
        row_heading="system_title",
    )


_EMPTY_COLUMNS = [
    *("protocol", "system", "system_title", "tier", "seed"),
    *(f"{prefix}{metric}" for metric in METRICS for prefix in ("", "published_")),
]


def _seeds(found: Sequence[SeedScores]) -> list[str]:
    """Names of all members, published and ours, those with numbers in ascending order first."""
    names = {
        name for scores in found for side in (scores.ours, scores.theirs) for name in side.index
    }
    numbered = sorted((n for n in names if n.removeprefix("seed").isdigit()), key=_number)
    return [*numbered, *sorted(names - set(numbered))]


def _number(name: str) -> int:
    return int(name.removeprefix("seed"))


def _value(scores: pd.Series, seed: str) -> float | None:
    if seed == _MEAN:
        return float(scores.mean()) if len(scores) else None
    if seed == _SPREAD:
        return float(scores.std(ddof=1)) if len(scores) > 1 else None
    return float(scores[seed]) if seed in scores.index else None


def _points(axes: Axes, scores: pd.Series, seeds: Sequence[str], colour: str | None) -> None:
    """Filled marks with a solid mean for ours, hollow ones with a dashed mean for the published."""
    if scores.empty:
        return
    ink = colour or style.INK
    mean = float(scores.mean())
    if len(scores) > 1:
        spread = float(scores.std(ddof=1))
        axes.axhspan(mean - spread, mean + spread, color=ink, alpha=0.1, lw=0)
    axes.axhline(mean, color=ink, lw=1.0 if colour else 0.8, ls="-" if colour else "--")
    places = [seeds.index(str(seed)) for seed in scores.index]
    axes.plot(
        places, scores.to_numpy(float), "o", ms=4, mfc=colour or "none", mec=ink, mew=0.8, zorder=3
    )


def _tier_words(tier: str | None) -> str:
    return f" ({TIER_LABELS[tier].lower()})" if tier else ""


def _sentences(
    found: Sequence[SeedScores],
    titles: Mapping[str, str],
    published_as: Mapping[str, str],
    *,
    simulated: bool,
) -> list[str]:
    sentences = []
    for scores in found:
        title = titles.get(scores.system, scores.system)
        if scores.tier is None:
            sentences.append(f"{title} has no scores under this protocol.")
            continue
        count = len(scores.ours)
        spread = scores.ours[METRICS[0]].std(ddof=1) if count > 1 else np.nan
        sentences.append(
            f"{title}: {count} member{'s' if count > 1 else ''}, {TIER_LABELS[scores.tier].lower()}"
            + (
                f", standard deviation of the single-trial correlation {spread:.4f}"
                if count > 1
                else ""
            )
            + "."
        )
    theirs = found[0].theirs[METRICS[0]]
    sentences += [
        f"Published: {len(theirs)} seeds of the factorized baseline, {theirs.mean():.4f} ± "
        f"{theirs.std(ddof=1):.4f} (Turishcheva et al. 2024, arXiv 2407.09100, Table 5), on the "
        "final test set of animals F–J: other animals and trials than ours, so that spreads may be "
        "compared and values not.",
        "Line: mean; band: ± standard deviation (ddof 1).",
        *published.variations(
            (scores.system for scores in found), published_as=published_as, titles=titles
        ),
    ]
    if simulated:
        sentences.append("Our recordings are simulated.")
    return sentences
