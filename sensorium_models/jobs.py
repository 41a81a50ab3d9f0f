"""What every job of the workflow does around its work: log to a file, end in a sentence."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sensorium_models.progress import bars_on
from sensorium_models.study import Study, load_study


@contextmanager
def job(snakemake: Any) -> Iterator[Study]:
    """Run the body of a rule's script; yields the validated study.

    All output of the process goes to the rule's log file. An error that a person can mend (bad
    configuration, bad input, full disk) ends in one sentence, in the log and on the terminal; any
    other one leaves its traceback in the log.

    Args:
        snakemake: the object that Snakemake hands to a script; its `config` and `log` are read.
    """
    terminal = os.dup(2)
    with Path(snakemake.log[0]).open("w", buffering=1, encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            study = load_study(snakemake.config)
            with bars_on(terminal):
                yield study
        except (ValueError, OSError) as error:
            traceback.print_exc()
            sentence = f"{type(error).__name__}: {error}\n"
            os.write(terminal, sentence.encode())
            raise SystemExit(1) from error
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def make_importable(*folders: str | Path) -> None:
    """Let this process and the jobs that it starts import modules that lie in `folders`.

    Scripts run in processes of their own; they must find the package of this checkout and the
    modules that lie beside a user's system files.
    """
    found = [str(Path(folder).resolve()) for folder in folders]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, [*found, *inherited])))
    sys.path[:0] = [folder for folder in found if folder not in sys.path]
