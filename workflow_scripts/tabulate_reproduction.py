"""Write the ledger of published numbers, with ours beside them."""

from pathlib import Path

from sensorium_models.evaluation.leaderboard import read_leaderboard
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.finished import read_record
from sensorium_models.jobs import job
from sensorium_models.reporting import tables
from sensorium_models.reporting.counterparts import ProtocolResults
from sensorium_models.reporting.reproduction import ledger
from sensorium_models.reporting.score_rows import read_ensembles

with job(snakemake) as study:
    records = {}
    for path in map(Path, snakemake.input.records):
        training_set, system, member = path.parts[-4:-1]
        records.setdefault((training_set, system), {})[member] = read_record(path.parent)
    results = {}
    for protocol in study.settings.protocols:
        paths = [p for p in map(Path, snakemake.input.scores) if p.parts[-3] == protocol]
        rows = read_ensembles(paths)
        means = rows.groupby(["system", "tier", "animal"], sort=False)[METRICS[0]].mean()
        results[protocol] = ProtocolResults(
            board=read_leaderboard(paths),
            by_animal=means.rename("value").reset_index(),
            records={
                system: records[study.training_set_of(system, protocol), system]
                for system in study.settings.systems
            },
        )
    table = ledger(
        results,
        systems=study.settings.systems,
        titles=snakemake.params.titles,
        simulated=study.simulated,
        published_as=snakemake.params.published_as,
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.ledger)
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
