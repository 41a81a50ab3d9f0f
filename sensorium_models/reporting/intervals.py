"""Intervals beside scores: which one belongs to a score shown, and the sentence about them.

Rows come from `evaluation.uncertainty`.
"""

from collections.abc import Collection

import pandas as pd


def interval_of(
    intervals: pd.DataFrame | None, *, system: str, estimate: str, tier: str, metric: str
) -> tuple[float, float] | None:
    """Lower and upper end for one score; None where there is none.

    Args:
        intervals: rows of the protocol shown; None where no uncertainty was estimated.
        estimate: "ensemble" or "members".
    """
    if intervals is None:
        return None
    rows = intervals[
        (intervals["system"] == system)
        & (intervals["estimate"] == estimate)
        & (intervals["tier"] == tier)
        & (intervals["metric"] == metric)
        & intervals["lower"].notna()
    ]
    return None if rows.empty else (float(rows["lower"].iloc[0]), float(rows["upper"].iloc[0]))


def level_label(intervals: pd.DataFrame) -> str:
    """`95 % interval`."""
    return f"{100 * float(intervals['level'].iloc[0]):g} % interval"


def interval_note(intervals: pd.DataFrame | None, tiers: Collection[str]) -> list[str]:
    """The sentence about the intervals of the tiers shown, where there are any."""
    if intervals is None:
        return []
    shown = intervals[intervals["tier"].isin(list(tiers)) & intervals["lower"].notna()]
    if shown.empty:
        return []
    drawn = (
        shown[["resampled", "degrees_of_freedom", "resamples"]].drop_duplicates().to_dict("records")
    )
    how = " or ".join(
        f"{row['resampled']} ({row['degrees_of_freedom']} degrees of freedom)" for row in drawn
    )
    return [
        f"{level_label(shown)}s: hierarchical bootstrap over {how}, {drawn[0]['resamples']} "
        "resamples, of the videos that all members of a system are scored on; levels with too few "
        "units are held as they are."
    ]
