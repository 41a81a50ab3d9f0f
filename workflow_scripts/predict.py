"""Predict the test trials of one member and keep the sums behind its scores."""

from pathlib import Path

from sensorium_models.evaluation.moments_file import write_moments
from sensorium_models.evaluation.responses import open_responses, open_units
from sensorium_models.evaluation.scores import score_member
from sensorium_models.inference import predict
from sensorium_models.jobs import job
from sensorium_models.predictions import frame_convention
from sensorium_models.recordings.splits import leaked_trials, predicted_trials, read_judged
from sensorium_models.recordings.store import digests

with job(snakemake) as study:
    protocol, system, member = (
        snakemake.wildcards[name] for name in ("protocol", "system", "member")
    )
    animals, tiers = study.predicted_animals(protocol), study.protocol(protocol).tiers
    recordings = dict(zip(animals, map(Path, snakemake.input.recordings), strict=True))
    splits = read_judged([snakemake.input.split], [snakemake.input.learned])
    scored = study.settings.scored_frames
    further_units = study.further_units(protocol)
    predict(
        Path(snakemake.input.record).parent,
        recordings=recordings,
        trials=predicted_trials(splits, member, animals, tiers),
        output=Path(snakemake.output.predictions),
        unit=study.settings.score_unit,
        first_scored_frame=scored.first,
        cap_frames=scored.cap,
        drop_last_frames=scored.drop_last,
        device=study.settings.device,
        threads=study.settings.cpu_threads,
        attributes={
            "protocol": protocol,
            "training_set": study.training_set_of(system, protocol),
            "system": system,
            "member": member,
            "frame_convention": frame_convention(
                first_frame=scored.first, cap_frames=scored.cap, drop_last_frames=scored.drop_last
            ),
            "recording_digests": digests(recordings),
            "fingerprint": snakemake.params.fingerprint,
        },
        moments_units=1 + len(further_units),
    )
    with (
        open_responses(recordings, study.settings.score_unit) as responses,
        open_units(recordings, further_units) as further,
    ):
        moments = score_member(
            predictions=Path(snakemake.output.predictions),
            responses=responses,
            left_out=leaked_trials(splits, [member], animals, tiers),
            further=further,
        )
    write_moments(Path(snakemake.output.moments), moments)
