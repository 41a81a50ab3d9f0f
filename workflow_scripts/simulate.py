"""Make one simulated archive, with its truth beside it, and the receipt that names it."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings import download
from sensorium_models.simulation.native import write_native_recording
from sensorium_models.simulation.recording import SimulationSettings, write_recording

with job(snakemake) as study:
    animal = snakemake.wildcards.animal
    recording = study.recording(animal)
    source = recording.source
    simulated = {
        "animal": animal,
        "seed": source.seed,
        "pair": source.pair,
        "role": recording.test_responses,
        "bonus_types": recording.stimulus_types,
        "metadata": source.metadata,
        "settings": SimulationSettings(
            neurons=recording.neurons,
            training_trials=source.training_trials,
            test_videos=source.test_videos,
            repeats=source.repeats,
        ),
    }
    if source.layout == "native":
        archive = study.settings.archives / recording.folder
        write_native_recording(folder=archive, screen_hz=source.screen_hz, **simulated)
    else:
        archive = study.settings.archives / f"{recording.folder}.zip"
        write_recording(archive=archive, folder=recording.folder, **simulated)
    download.write_receipt(Path(snakemake.output.receipt), animal, source, archive)
