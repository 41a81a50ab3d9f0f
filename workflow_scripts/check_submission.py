"""Check a submission from anywhere against the recordings of a study, as the server would.

python workflow_scripts/check_submission.py predictions.zip [--study config.yaml my_study.yaml]
"""

import argparse
import sys
from pathlib import Path

from sensorium_models.configuration import REPOSITORY
from sensorium_models.study import read_study
from sensorium_models.submission import expected_animals
from sensorium_models.submitted import problems_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submission", type=Path)
    parser.add_argument("--study", type=Path, nargs="+", default=[REPOSITORY / "config.yaml"])
    parser.add_argument("--protocol", default="competition")
    options = parser.parse_args()
    try:
        study = read_study(*options.study)
        folder = study.settings.results / "recordings"
        stores = {a: folder / f"{a}.h5" for a in study.predicted_animals(options.protocol)}
        animals = expected_animals(study, options.protocol, stores)
        problems = problems_of(options.submission, animals)
    except (ValueError, OSError) as error:
        problems = [str(error)]
    print("\n".join(problems) or f"{options.submission}: as the server expects it.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
