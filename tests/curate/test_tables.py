"""Curated tables that went through another program, or were damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from orbit4d.curate import columns
from orbit4d.curate.cli import command
from orbit4d.curate.measuring import MEASURE_VERSION, MeasureSettings
from orbit4d.curate.rule_settings import PRESETS
from orbit4d.curate.rules import decide
from orbit4d.curate.tables import known_rows, read_measured, read_table, write_table
from orbit4d.datasets.core.errors import InputError, WorkError


def _row(k: int, **more) -> dict:
    rng = np.random.default_rng(k)
    return {
        "uid": f"{k:04d}",
        "path": f"/assets/{k:04d}.glb",
        "action": f"n{k}",
        "action_index": k % 3,
        "asset_sha256": f"{k:064x}",
        "license": "CC0-1.0" if k % 2 else "CC-BY-4.0",
        "status": "measured",
        "window_start": 0.0,
        "window_end": 1.0 + k,
        "motion_geometry": float(rng.uniform(0, 0.05)),
        "out_of_frame": float(rng.uniform(0, 1)),
        "out_of_frame_views": rng.uniform(size=4).tolist(),
        "coverage_mean": 0.1,
        "coverage_fit": 0.1,
        "n_triangles": 12 if k % 4 else None,
        "n_actions": 1,
        "flags": ["merged", "scaled"] if k % 3 else [],
        "flat": bool(k % 7 == 0),
        "preview": bytes(range(k)) or None,
        "phash": f"{k:016x}-{k:02x}{255 - k:02x}80",
        **more,
    }


@pytest.fixture
def table() -> pa.Table:
    rows = [_row(k) for k in range(20)]
    rows.append({**_row(30), "status": "refused", "failure": "bad_file:magic", "motion_geometry": None})
    info = {"measure_version": MEASURE_VERSION, "measure": {"previews": "window"}}
    return decide(columns.build(rows, info), PRESETS["default"])


def _filtered(table: pa.Table, path: Path, how: str) -> None:
    """Rows of CC0 assets, by another program; the metadata is gone."""
    write_table(table, str(path.with_name("source.parquet")))
    source = str(path.with_name("source.parquet"))
    if how == "pandas":
        frame = pd.read_parquet(source)
        frame[frame["license"] == "CC0-1.0"].to_parquet(path)
    elif how == "polars":
        pl.read_parquet(source).filter(pl.col("license") == "CC0-1.0").write_parquet(path)
    else:
        import duckdb

        duckdb.sql(f"COPY (FROM '{source}' WHERE license = 'CC0-1.0') TO '{path}' (FORMAT parquet)")


@pytest.mark.parametrize("how", ["pandas", "polars", "duckdb"])
def test_a_filtered_table_is_known_by_its_columns(table, tmp_path, how):
    _filtered(table, tmp_path / "some.parquet", how)
    assert b"orbit4d.curate" not in (pq.read_schema(tmp_path / "some.parquet").metadata or {})
    found = read_measured(str(tmp_path / "some.parquet"))
    kept = table.filter(pa.array([name == "CC0-1.0" for name in table["license"].to_pylist()]))
    assert found is not None and found.schema.equals(columns.SCHEMA)
    assert found.to_pylist() == kept.to_pylist()
    rules = PRESETS["default"]
    assert decide(found, rules)["reasons"].to_pylist() == kept["reasons"].to_pylist()


@pytest.mark.parametrize("how", ["pandas", "polars", "duckdb"])
def test_the_command_decides_on_it_and_measures_nothing(table, tmp_path, how, monkeypatch):
    _filtered(table, tmp_path / "some.parquet", how)
    monkeypatch.setattr("orbit4d.curate.measuring.measure_sources", lambda *a, **k: pytest.fail("measured"))
    out = tmp_path / "out.parquet"
    result = CliRunner().invoke(
        command, [str(tmp_path / "some.parquet"), "--min-motion", "0", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "10 measured rows decided again" in result.output and "known by its columns" in result.output
    assert read_table(str(out)).num_rows == 10


def test_a_duplicate_of_what_was_filtered_away_is_none_any_more(table, tmp_path):
    looks = {"phash": "00ff00ff00ff00ff-102030"}
    rows = [_row(1, uid="first", **looks), _row(2, uid="second", **looks), _row(4, uid="third", **looks)]
    from orbit4d.curate.duplicates import mark_duplicates

    whole = mark_duplicates(columns.build(rows, {"measure_version": 1}))
    assert whole["duplicate_of"].to_pylist() == [None, "first", "first"]
    write_table(whole.slice(1), str(tmp_path / "rest.parquet"))
    assert read_table(str(tmp_path / "rest.parquet"))["duplicate_of"].to_pylist() == [None, "second"]


def test_a_table_that_lost_measures_is_told_before_it_is_measured_again(table, tmp_path, monkeypatch):
    some = table.drop(["motion_shape", "torn_edges"]).replace_schema_metadata(None)
    pq.write_table(some, tmp_path / "some.parquet")
    assert read_measured(str(tmp_path / "some.parquet")) is None

    def stop(*args, **kwargs):
        raise WorkError("stopped here")

    monkeypatch.setattr("orbit4d.curate.measuring.measure_sources", stop)
    result = CliRunner().invoke(
        command, [str(tmp_path / "some.parquet"), "--out", str(tmp_path / "out.parquet")]
    )
    assert "motion_shape, torn_edges missing" in result.output


def test_new_rows_are_not_mixed_with_those_of_an_unknown_measuring(table, tmp_path):
    _filtered(table, tmp_path / "some.parquet", "polars")
    with pytest.raises(InputError, match="does not say how it was measured"):
        known_rows(str(tmp_path / "some.parquet"), MeasureSettings())


@pytest.mark.parametrize("failure", ["bad_file:missing", "bad_file:unreadable", "bad_file:changed"])
def test_what_was_only_not_to_be_had_is_never_known_already(tmp_path, failure):
    settings = MeasureSettings()
    rows = [
        _row(1),
        {**_row(2), "status": "refused", "failure": failure, "n_actions": None},
        {**_row(3), "status": "refused", "failure": "bad_file:truncated", "n_actions": None},
    ]
    info = {"measure_version": MEASURE_VERSION, "measure": settings.__dict__}
    write_table(decide(columns.build(rows, info), PRESETS["default"]), str(tmp_path / "t.parquet"))
    assert [uid for uid, _ in known_rows(str(tmp_path / "t.parquet"), settings)] == ["0001", "0003"]


def test_any_flipped_bit_of_a_table_is_refused_or_changes_nothing(table, tmp_path):
    path = tmp_path / "t.parquet"
    write_table(table, str(path))
    content, good = path.read_bytes(), table.to_pylist()
    odd = 0
    for at in range(0, len(content), 53):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            found = read_measured(str(path))
        except (InputError, WorkError) as error:
            assert "t.parquet" in str(error) and "\n" not in str(error)
            odd += 1
            continue
        # A name that is another one by now, or text of the metadata, which no checksum covers.
        assert found is None or found.to_pylist() == good, at
    assert odd > 40
