"""Turn one archive into a recording store."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.progress import tell
from sensorium_models.recordings import download
from sensorium_models.recordings.native import Resampling
from sensorium_models.recordings.preprocess import write_store
from sensorium_models.recordings.stimulus_types import type_notes
from sensorium_models.recordings.store import Recording

with job(snakemake) as study:
    animal, receipt = snakemake.wildcards.animal, Path(snakemake.input.receipt)
    recording = study.recording(animal)
    source = recording.source
    native = source.kind == "native"
    write_store(
        archive=download.archive_of(receipt),
        store=Path(snakemake.output.store),
        animal=animal,
        neurons=recording.neurons,
        frame_rate_hz=study.settings.frame_rate_hz,
        known_tiers=list(study.settings.tiers),
        withheld_tiers=study.withheld_tiers(animal),
        train_tier=study.train_tier,
        unused_tiers=study.unused_tiers,
        fingerprint=snakemake.params.fingerprint,
        stimulus_types=recording.stimulus_types,
        checksum=download.checksum_of(receipt),
        resampling=Resampling(**source.resampling.model_dump()) if native else None,
    )
    with Recording(Path(snakemake.output.store)) as written:
        for note in type_notes(written.trials):
            tell(f"Animal {animal}: {note}")
