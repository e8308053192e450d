"""Render on a Ray cluster. This script stands alone: `ray submit` copies it to the head node, where it
imports the installed `orbit4d` and nothing beside itself.

    ray submit ray_cluster.yaml render/job.py -- s3://bucket/table.parquet --out s3://bucket/dataset
    ray job submit -- python -m orbit4d.render.job s3://bucket/table.parquet --out s3://bucket/dataset

Arguments are those of `orbit4d render`; the cluster that the script runs on is used unless `--address` is
given. The same command again resumes where the last one stopped.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> int:
    """Run `orbit4d render` on the surrounding cluster; returns the exit code."""
    # Python puts the script's own folder first on the path; in a checkout its files would stand in for
    # packages.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]

    from orbit4d.datasets.commands.command import run
    from orbit4d.render.cli import command

    if arguments and arguments[0] == "--":
        arguments = arguments[1:]
    if not any(a == "--address" or a.startswith("--address=") for a in arguments):
        arguments = ["--address", os.environ.get("RAY_ADDRESS") or "auto", *arguments]
    return run(command, arguments, prog_name="job.py")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    from orbit4d.datasets.commands.command import leave

    leave(code)
