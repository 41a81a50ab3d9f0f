"""The leakage audit: which videos are shown in several places, and what is scored for whom.

Video identity decides, in any animal: a test trial whose video a member or its teacher was trained
on is never scored for it. What is scored anyway but deserves a word is counted as well.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from sensorium_models.recordings.splits import TRAINED_ROLES, shows_any_of

SHARED_COLUMNS = (
    "animal",
    "tier",
    "other_animal",
    "other_tier",
    "videos",
    "trials",
    "other_trials",
    "video_ids",
)


def shared_videos(videos: pd.DataFrame, *, tiers: Sequence[str]) -> pd.DataFrame:
    """Every two places (animal and tier) that show the same videos, columns `SHARED_COLUMNS`.

    Args:
        videos: the table of `stimuli.videos_table`.
        tiers: those that serve something, in the order of the rows; nothing leaks from others.

    Returns:
        One row per pair of places, animals in the order of the table: how many videos they share,
        how many trials show these in the one and in the other, and the videos' ids, separated by
        blanks.
    """
    shown = videos[videos["tier"].isin(list(tiers))]
    if "near_ids" not in shown:
        shown = shown.assign(near_ids="")
    keys = ["animal", "tier", "video_id"]
    counts = shown.groupby([*keys, "near_ids"], sort=False).size().reset_index(name="n")
    animals = list(dict.fromkeys(videos["animal"]))
    places = [(animal, tier) for animal in animals for tier in tiers]
    number = {place: i for i, place in enumerate(places)}
    counts["place"] = [
        number[place] for place in zip(counts["animal"], counts["tier"], strict=True)
    ]
    # Under its own id and under those of other versions of the same video.
    counts["known_as"] = [
        [own, *near.split()]
        for own, near in zip(counts["video_id"], counts["near_ids"], strict=True)
    ]
    pairs = counts.explode("known_as").merge(
        counts, left_on="known_as", right_on="video_id", suffixes=("", "_other")
    )
    pairs = pairs[pairs["place"] < pairs["place_other"]]
    rows = []
    for _, part in pairs.groupby(["place", "place_other"]):
        here = part.drop_duplicates("video_id")
        there = part.drop_duplicates("video_id_other")
        rows.append(
            (
                *places[int(part["place"].iloc[0])],
                *places[int(part["place_other"].iloc[0])],
                len(here),
                int(here["n"].sum()),
                int(there["n_other"].sum()),
                " ".join(sorted(here["video_id"])),
            )
        )
    return pd.DataFrame(rows, columns=list(SHARED_COLUMNS))


@dataclass(frozen=True)
class MemberAudit:
    """What became of the test trials of a member (or an ensemble) under one protocol.

    Every frame has the columns animal, trial, tier, video_id, near_ids of the split. `scored`,
    `withheld`, `trained_on`, `teacher_trained_on` and `weights_fitted_on` part the tested trials; a
    trial is in the first list whose reason holds: withheld responses, own training, the teacher's,
    the weights'.

    Attributes:
        scored: what remains.
        withheld: the publisher has the responses.
        trained_on: left out, because the member was trained on the video.
        teacher_trained_on: left out, because only its teacher was.
        weights_fitted_on: left out, because the weights of the ensemble were fitted on its tier.
        withheld_trained_on: those of `withheld` whose video was trained on; the competition's
            server scores them.
        scored_selected_on: those of `scored` whose video helped to pick the best epoch.
        selecting: the trials that pick the best epoch.
        selecting_trained_on: those of `selecting` whose video was also trained on.
    """

    scored: pd.DataFrame
    withheld: pd.DataFrame
    trained_on: pd.DataFrame
    teacher_trained_on: pd.DataFrame
    weights_fitted_on: pd.DataFrame
    withheld_trained_on: pd.DataFrame
    scored_selected_on: pd.DataFrame
    selecting: pd.DataFrame
    selecting_trained_on: pd.DataFrame

    @property
    def tested(self) -> int:
        """Trials that the protocol predicts."""
        left_out = (self.trained_on, self.teacher_trained_on, self.weights_fitted_on)
        return sum(len(part) for part in (self.scored, self.withheld, *left_out))


def audit_members(
    splits: pd.DataFrame,
    members: Sequence[str],
    *,
    animals: Collection[str],
    tiers: Collection[str],
    withheld: Mapping[str, Collection[str]],
    fitted_tiers: Collection[str] = (),
) -> MemberAudit:
    """What of a protocol's test trials is scored for `members` together, and what is not and why.

    Args:
        splits: of these members, which are tested on the same trials; several are an ensemble, in
            which counts what ANY of them has seen.
        animals, tiers: what the protocol predicts.
        withheld: animal -> tiers whose responses the publisher withholds.
        fitted_tiers: on whose trials the weights of the ensemble were fitted.

    Raises:
        ValueError: a member is not in the table.
    """
    if absent := [member for member in members if member not in set(splits["member"])]:
        raise ValueError(f"Member {absent[0]} is not in the split. Run the split stage again.")
    rows = splits[splits["member"].isin(list(members))]
    columns = ["animal", "trial", "tier", "video_id", "near_ids"]
    by_role = {
        role: part[columns].drop_duplicates(["animal", "trial"]).reset_index(drop=True)
        for role, part in rows.groupby("role")
    }
    nothing = rows[columns].iloc[:0]
    tested = by_role.get("test", nothing)
    tested = tested[tested["animal"].isin(list(animals)) & tested["tier"].isin(list(tiers))]
    selecting = by_role.get("select", nothing)
    own, taught = (by_role.get(role, nothing) for role in TRAINED_ROLES)
    trained = pd.concat([own, taught])
    is_withheld = pd.Series(
        [
            tier in withheld.get(animal, ())
            for animal, tier in zip(tested["animal"], tested["tier"], strict=True)
        ],
        index=tested.index,
        dtype=bool,
    )
    by_member, by_any = shows_any_of(tested, own), shows_any_of(tested, trained)
    is_fitted = tested["tier"].isin(list(fitted_tiers))
    scored = tested[~is_withheld & ~by_any & ~is_fitted]
    return MemberAudit(
        scored=scored,
        withheld=tested[is_withheld],
        trained_on=tested[~is_withheld & by_member],
        teacher_trained_on=tested[~is_withheld & by_any & ~by_member],
        weights_fitted_on=tested[~is_withheld & ~by_any & is_fitted],
        withheld_trained_on=tested[is_withheld & by_any],
        scored_selected_on=scored[shows_any_of(scored, selecting)],
        selecting=selecting,
        selecting_trained_on=selecting[shows_any_of(selecting, trained)],
    )
