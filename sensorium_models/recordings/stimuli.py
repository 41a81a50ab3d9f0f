"""The table of videos: every trial of every animal with the id and the kind of what it showed.

Ids and kinds are in the stores (`identity`, `repeats`, `stimulus_types`); this puts them together.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from sensorium_models.recordings.repeats import nearly_equal_ids
from sensorium_models.recordings.store import Recording

VIDEO_COLUMNS = ("animal", "trial", "video_id", "near_ids", "tier", "stimulus_type", "frames")


def videos_table(recordings: Iterable[Recording]) -> pd.DataFrame:
    """One row per trial of all `recordings`, columns `VIDEO_COLUMNS`.

    `video_id` comes from what the trial's own animal was shown and from nothing else: neither the
    order of the animals nor another animal changes it. The price, which no such id escapes: a video
    of which two animals saw slightly different versions has, rarely, two ids. `near_ids` (ids with
    spaces between them, mostly none) makes up for it: the other ids present that are the same video
    by the rule of `repeats`. Another animal may add to it and takes nothing away. Who asks whether
    a video was seen before compares with both.

    Raises:
        ValueError: there is no recording.
    """
    opened = list(recordings)
    if not opened:
        raise ValueError("A table of videos needs at least one recording. Preprocess one first.")
    near = {name: " ".join(sorted(ids)) for name, ids in nearly_equal_ids(opened).items()}
    tables = [
        pd.DataFrame(
            {
                "animal": recording.animal,
                "trial": np.arange(len(recording.trials)),
                "video_id": recording.trials.video_id,
                "near_ids": [near.get(name, "") for name in recording.trials.video_id.tolist()],
                "tier": recording.trials.tier,
                "stimulus_type": recording.trials.stimulus_type,
                "frames": recording.trials.frames,
            },
            columns=list(VIDEO_COLUMNS),
        )
        for recording in opened
    ]
    return pd.concat(tables, ignore_index=True)
