"""Draw the quality sheet of one recording."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings.quality import measure
from sensorium_models.recordings.store import Recording
from sensorium_models.recordings.unusual import unusual
from sensorium_models.reporting import style
from sensorium_models.reporting.quality import draw

with job(snakemake) as study:
    animal, tiers = snakemake.wildcards.animal, study.settings.tiers
    scored = study.settings.scored_frames
    with Recording(Path(snakemake.input.recording)) as recording:
        quality = measure(
            recording,
            repeated_tiers=study.validation_tiers,
            unit=study.settings.score_unit,
            first_frame=scored.first,
            cap_frames=scored.cap,
            drop_last_frames=scored.drop_last,
        )
    drawing = draw(
        quality,
        unusual=unusual(
            quality, tiers=tiers, stimulus_types=study.recording(animal).stimulus_types
        ),
        tiers=tiers,
        order=study.settings.animals.index(animal),
        simulated=study.recording(animal).source.kind == "simulated",
    )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
