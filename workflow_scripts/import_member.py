"""Make a member of a published checkpoint."""

from pathlib import Path

from sensorium_models import fingerprints
from sensorium_models.jobs import job
from sensorium_models.recordings.splits import read_splits
from sensorium_models.training.importing import import_member

with job(snakemake) as study:
    training_set, system, member = (
        snakemake.wildcards[name] for name in ("training_set", "system", "member")
    )
    animals = study.training_animals(training_set, system)
    output = Path(snakemake.output.record).parent
    (output / "adopted.json").unlink(missing_ok=True)
    import_member(
        system=study.systems[system],
        member=member,
        axes=study.member_axes(system)[member],
        training_set=training_set,
        checkpoint=Path(snakemake.input.checkpoint),
        recordings=dict(zip(animals, map(Path, snakemake.input.recordings), strict=True)),
        folders={animal: study.recording(animal).folder for animal in animals},
        splits=read_splits(Path(snakemake.input.split)),
        output=output,
        record={
            "fingerprint": {
                "digest": fingerprints.digest(snakemake.params.fingerprint),
                "content": snakemake.params.fingerprint,
            }
        },
    )
