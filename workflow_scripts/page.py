"""Write the report page."""

from pathlib import Path

from sensorium_models.finished import read_record
from sensorium_models.jobs import job
from sensorium_models.reporting.page import write_page
from sensorium_models.reporting.summary import summarise

with job(snakemake) as study:
    write_page(
        Path(snakemake.output.page),
        summary=summarise(study, [read_record(Path(p).parent) for p in snakemake.input.records]),
        figures=[Path(path) for path in snakemake.input.figures],
        tables=[Path(path) for path in snakemake.input.tables],
    )
