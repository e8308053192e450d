"""Ctrl-C in the middle of a run: nothing measured is measured again, nothing half-written is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq

N = 20


def test_an_interrupted_run_goes_on_where_it_stopped(make_cube, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "table.parquet"
    folder.mkdir()
    for i in range(N):
        make_cube(folder / f"cube{i:02d}.glb", {"hop": [(0, 0, 0), (0.01 * (i + 3), 0, 0), (0, 0, 0)]})
    code = "from orbit4d.app.cli import curate_main; curate_main()"
    arguments = [str(folder), "--out", str(out), "--preview-size", "32", "--workers", "1"]
    journal = out.with_name(out.name + ".journal")
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not journal.exists() or journal.read_text().count("\n") < 4:
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.02)
        os.kill(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert not out.exists()
    kept = journal.read_text().count("\n") - 1
    assert 3 <= kept < N

    again = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    [known] = re.findall(r"measured 20 \((\d+) known already\)", again.stdout)
    assert int(known) == kept
    rows = pq.read_table(out, columns=["uid", "verdict"]).to_pylist()
    assert len({row["uid"] for row in rows}) == N and not journal.exists()
