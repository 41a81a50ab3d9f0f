"""How large a study's frames are, as far as anything on this machine tells before a job has run.

Only checks of configurations need this: a finished network was built from its stores.
"""

from contextlib import suppress

from sensorium_models.recordings.sources import open_recording
from sensorium_models.recordings.store import Recording
from sensorium_models.study import Study


def frame_shape_of(study: Study) -> tuple[int, int]:
    """(H, W) of the study's frames: of a store, else of a recording, else SENSORIUM's 36 x 64."""
    for animal in study.settings.animals:
        # What cannot be read now is told, or made again, by the rule that needs it.
        path = study.settings.results / "recordings" / f"{animal}.h5"
        with suppress(ValueError, OSError), Recording(path) as store:
            return store.frame_shape
        source = study.recording(animal).source
        if source.kind in ("directory", "native"):
            with suppress(ValueError, OSError), open_recording(source.path) as recording:
                height, width = recording.leading_shape("video")
                return height, width
    return 36, 64
