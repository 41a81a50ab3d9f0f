"""Print what a study will take; no job runs. Takes --configfile and --config as snakemake does."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import yaml  # noqa: E402

from sensorium_models.configuration import ConfigurationError  # noqa: E402
from sensorium_models.planning import report  # noqa: E402
from sensorium_models.study import read_study  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=["all"])
    parser.add_argument("--configfile", nargs="+", default=[])
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--cores", "1", "--dry-run", "--quiet", "rules", *given.targets]
    for option in ("configfile", "config"):
        if values := getattr(given, option):
            command += [f"--{option}", *values]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    counts = re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    jobs = {rule: int(count) for rule, count in counts if rule != "total"}
    try:
        overrides = {
            key: yaml.safe_load(value)
            for key, value in (entry.split("=", 1) for entry in given.config)
        }
        files = [REPOSITORY / "config.yaml", *map(Path, given.configfile)]
        print(report(read_study(*files, overrides=overrides), jobs), end="")
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
