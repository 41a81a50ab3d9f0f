"""Snakemake as it is, but for how often it looks after its SLURM jobs: every second.

The plugin looks ten seconds later each time that no job has ended, up to three minutes, and knows
no setting for it; a chain of short jobs would spend most of its time waiting.
"""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def sleep(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1.0)


RemoteExecutor.sleep = sleep
main(sys.argv[1:])
