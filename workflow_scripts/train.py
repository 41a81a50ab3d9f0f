"""Train one member."""

from pathlib import Path

from sensorium_models import fingerprints
from sensorium_models.jobs import job
from sensorium_models.training.loop import train_member

# Processes that train together read this file again, under another name.
if __name__ == "__main__":
    with job(snakemake) as study:
        training_set, system, member = (
            snakemake.wildcards[name] for name in ("training_set", "system", "member")
        )
        animals = study.training_animals(training_set, system)
        output = Path(snakemake.output.record).parent
        scored = study.settings.scored_frames
        (output / "adopted.json").unlink(missing_ok=True)
        train_member(
            system=study.systems[system],
            member=member,
            axes=study.member_axes(system)[member],
            training_set=training_set,
            recordings=dict(zip(animals, map(Path, snakemake.input.recordings), strict=True)),
            splits=Path(snakemake.input.split),
            output=output,
            checkpoint=Path(snakemake.params.checkpoint),
            teacher=Path(snakemake.input.teacher[0]).parent if snakemake.input.teacher else None,
            processes=max(1, study.systems[system].resources.gpus),
            data_workers=study.settings.data_workers,
            checkpoint_minutes=study.settings.checkpoint_minutes,
            device=study.settings.device,
            threads=study.settings.cpu_threads,
            first_scored_frame=scored.first,
            cap_frames=scored.cap,
            drop_last_frames=scored.drop_last,
            score_unit=study.settings.score_unit,
            compared_tiers=study.validation_tiers,
            record={
                "fingerprint": {
                    "digest": fingerprints.digest(snakemake.params.fingerprint),
                    "content": snakemake.params.fingerprint,
                }
            },
        )
