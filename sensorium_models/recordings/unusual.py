"""What is unusual about a recording, in sentences for a person who is about to train on it.

The measure of what is usual: the released recordings of SENSORIUM 2023 (arXiv 2407.09100).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from sensorium_models.recordings.quality import CHANNELS, Quality, is_constant
from sensorium_models.recordings.stimulus_lengths import doubtful_lengths
from sensorium_models.recordings.stimulus_types import type_doubt

# The released recordings repeat every test video 7 to 10 times.
USUAL_REPEATS = 7
# A trial of a type without fixed length is long beyond this multiple of the type's median.
LONG = 1.2


def unusual(
    quality: Quality,
    *,
    tiers: Mapping[str, str],
    stimulus_types: Mapping[str, Sequence[str]],
) -> list[str]:
    """Sentences about whatever differs from a released recording; empty where nothing does.

    Args:
        tiers: tier -> its role in the study (train, select, test, unused).
        stimulus_types: tier -> types that the study's table has for this animal; other tiers show
            movies.
    """
    used = quality.trials[[tiers.get(tier) != "unused" for tier in quality.trials["tier"]]]
    return [
        *_about_masked(quality),
        *_about_trials(used, tiers),
        *_about_types(used, stimulus_types),
        *_about_lengths(used),
        *doubtful_lengths(
            quality.trials["tier"].tolist(),
            quality.trials["frames"].tolist(),
            types=stimulus_types,
            unused=[tier for tier, role in tiers.items() if role == "unused"],
            frame_rate_hz=quality.frame_rate_hz,
        ),
        *_about_responses(quality),
        *_about_behaviour(quality, used),
    ]


def _about_trials(used: pd.DataFrame, tiers: Mapping[str, str]) -> Iterable[str]:
    absent = [
        tier for tier, role in tiers.items() if role != "unused" and not any(used.tier == tier)
    ]
    if absent:
        yield f"No trial is of tier {_list(absent)}."
    few: dict[str, list[str]] = {}
    for tier in (tier for tier in tiers if any(used["tier"] == tier)):
        counts = used[used["tier"] == tier].groupby("video").size()
        if tiers[tier] == "train":
            if again := int((counts > 1).sum()):
                yield f"{_count(again, 'video')} of tier {tier} {_was(again)} shown more than once."
        elif counts.min() < USUAL_REPEATS:
            few.setdefault(_range(counts), []).append(tier)
    if few:
        places = [f"{times} in {_list(names)}" for times, names in few.items()]
        yield (
            f"Few repeats of a video: {'; '.join(places)} (7 to 10 in the released recordings), so "
            "averages over repeats are noisy."
        )
    shown_in = used.groupby("video")["tier"].nunique()
    if both := int((shown_in > 1).sum()):
        yield f"{_count(both, 'video')} {_was(both)} shown in more than one tier."


def _about_masked(quality: Quality) -> Iterable[str]:
    if masked := quality.masked_trials:
        yield (
            f"{_count(len(masked), 'trial')} (such as trial {masked[0]}) {_was(len(masked))} left "
            "out: a device, or the screen, has a gap there that is too long to fill. The attribute "
            "masked_because of the store names it and its time."
        )


def _about_types(used: pd.DataFrame, table: Mapping[str, Sequence[str]]) -> Iterable[str]:
    shown = used.groupby(["tier", "pixel_type", "stimulus_type"], sort=False)
    for (tier, by_pixels, kind), part in shown:
        some = f"{_count(len(part), 'trial')} of tier {tier} (such as trial {part.index[0]})"
        expected = list(table.get(str(tier), ())) or ["movie"]
        if kind != "unknown" and kind not in expected:
            yield f"{some} showed {kind}, where the study's table has {_list(expected)}."
        elif doubt := type_doubt(str(by_pixels), str(kind)):
            yield f"{some}: {doubt}"


def _about_lengths(used: pd.DataFrame) -> Iterable[str]:
    for kind, part in used.groupby("stimulus_type", sort=False):
        frames = part["frames"]
        usual = int(frames.median()) if kind == "images" else Counter(frames).most_common(1)[0][0]
        short = frames[frames < usual] if kind != "images" else frames.iloc[:0]
        long = frames[frames > usual] if kind != "images" else frames[frames > LONG * usual]
        for odd, word, extreme in ((short, "fewer", short.min()), (long, "more", long.max())):
            if len(odd):
                trial = odd.index[odd == extreme][0]
                yield (
                    f"{_count(len(odd), 'trial')} of type {kind} {_has(len(odd))} {word} frames"
                    f" than the usual {usual} (trial {trial}: {int(extreme)})."
                )
    lengths = used.groupby("video")["frames"].nunique()
    if uneven := int((lengths > 1).sum()):
        yield f"Repeats of {_count(uneven, 'video')} differ in length."


def _about_responses(quality: Quality) -> Iterable[str]:
    constant = int(quality.constant.sum())
    if constant:
        yield (
            f"{constant:,} of {quality.neurons:,} neurons {_was(constant)} silent: their response"
            " never changed."
        )
    if quality.negative_share > 0:
        yield (
            f"{_percent(quality.negative_share)} of all response values are negative, down to"
            f" {quality.lowest_response:.3g}, as deconvolved responses are not."
        )
    if quality.missing_share > 0:
        yield f"{_percent(quality.missing_share)} of all response values are missing."
    if quality.reliability is None:
        yield (
            "No video with scored frames was repeated in a tier that selects, so reliability is"
            " unknown."
        )
    else:
        unreliable = float(np.mean(~(quality.reliability > 0)))
        if unreliable > 0.5:
            yield f"Repeats agree no better than chance in {_percent(unreliable)} of the neurons."
    if quality.coordinates is None:
        yield "The positions of the cells are unknown."


def _about_behaviour(quality: Quality, used: pd.DataFrame) -> Iterable[str]:
    for names in CHANNELS.values():
        for name in names:
            if name not in quality.channels:
                if name == "running speed" and "treadmill" in quality.unused_devices:
                    yield (
                        "Running speed was recorded but is not used: behaviour is pupil size and "
                        "running speed together, and there is no eye tracker."
                    )
                    continue
                yield f"{name.capitalize()} was not recorded."
                continue
            missing = float(np.mean(~np.isfinite(quality.channels[name])))
            if missing > 0:
                yield f"{name.capitalize()} is missing in {_percent(missing)} of all frames."
            if is_constant(quality.channels[name]):
                yield f"{name.capitalize()} is constant throughout."
            elif stuck := int(used[f"constant {name}"].sum()):
                yield (
                    f"{name.capitalize()} is constant within {stuck:,} of"
                    f" {_count(len(used), 'trial')}."
                )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
