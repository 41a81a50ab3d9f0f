"""Average the members of one system, or several systems, and keep their cross-moments."""

from pathlib import Path

import numpy as np

from sensorium_models.ensemble import build_ensemble
from sensorium_models.ensemble_weights import fitted_weights, fitting_moments
from sensorium_models.evaluation.responses import open_responses, open_units
from sensorium_models.jobs import job
from sensorium_models.joint_ensembles import fitting_tiers
from sensorium_models.recordings.splits import leaked_by_any

with job(snakemake) as study:
    protocol, name = snakemake.wildcards.protocol, snakemake.wildcards.system
    animals, tiers = study.predicted_animals(protocol), study.protocol(protocol).tiers
    recordings = dict(zip(animals, map(Path, snakemake.input.recordings), strict=True))
    members = [Path(path) for path in snakemake.input.predictions]
    judged = zip(snakemake.input.splits, snakemake.input.learned, strict=True)
    left_out = leaked_by_any(judged, animals, tiers)
    joint = study.joint_ensembles(protocol).get(name)
    weights = None if joint is None else joint.given_weights()
    fitted_on = {}
    with (
        open_responses(recordings, study.settings.score_unit) as responses,
        open_units(recordings, study.further_units(protocol)) as further,
    ):
        if joint is not None and weights is None:
            fitting = fitting_tiers(study, protocol)
            moments = fitting_moments(
                members=members, responses=responses, tiers=fitting, left_out=left_out
            )
            weights = fitted_weights(moments).tolist()
            fitted_on = {
                animal: np.flatnonzero(np.isin(recorded.tiers, fitting))
                for animal, recorded in responses.items()
            }
        build_ensemble(
            name=name,
            members=members,
            responses=responses,
            predictions=Path(snakemake.output.predictions),
            moments=Path(snakemake.output.moments),
            mean=Path(snakemake.output.mean),
            weights=weights,
            left_out=left_out,
            fitted_on=fitted_on,
            further=further,
        )
