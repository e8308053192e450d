"""Other people's readers on our files: webdataset, DuckDB, pandas, polars, ray.data; and remote places."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DataLoader

from orbit4d.datasets import DatasetWriter, Index, InputError, OrbitDataset, decode, read_clip
from orbit4d.datasets.operations.verify import verify


def test_webdataset_sees_one_sample_per_clip(synthetic_dataset):
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(str(path) for path in (synthetic_dataset / "shards").iterdir())
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    index = Index(synthetic_dataset)
    assert len(samples) == len(index)
    for number, sample in enumerate(samples):
        row = index.row(number)
        assert sample["__key__"] == f"{row['uid']}__a{row['action_index']}__{row['rig']}__o{row['orbit']}"
        frames = [sample[f"{i:03d}.webp"] for i in range(row["n_frames"])]
        clip = read_clip(index, row["uid"], row["action_index"], row["rig"], row["orbit"])
        assert tuple(frames) == clip.frames


def test_duckdb_pandas_and_polars_query_the_index(synthetic_dataset):
    duckdb, pandas = pytest.importorskip("duckdb"), pytest.importorskip("pandas")
    glob = f"{synthetic_dataset}/index/*.parquet"
    found = duckdb.sql(
        "SELECT rig, count(*) AS clips, avg(measures.motion_magnitude) AS m, min(len(c2w)) AS frames, "
        f"min(len(c2w[1])) AS numbers FROM '{glob}' GROUP BY rig ORDER BY rig"
    ).fetchall()
    assert [(row[0], row[1], row[3], row[4]) for row in found] == [
        (rig, 8, 8, 16) for rig in ("dynamic_orbit", "front_view", "static_orbit")
    ]
    frame = pandas.concat(pandas.read_parquet(path) for path in (synthetic_dataset / "index").iterdir())
    assert set(frame[frame.license == "CC-BY-4.0"].uid) == {"asset-001", "asset-003", "asset-005"}
    assert frame.measures.iloc[0]["motion_magnitude"] == pytest.approx(
        read_clip(synthetic_dataset, frame.uid.iloc[0], 0, frame.rig.iloc[0]).measures["motion_magnitude"]
    )
    polars = pytest.importorskip("polars")
    assert polars.scan_parquet(glob).filter(polars.col("orbit") == 0).select("uid").collect().height == 24


def test_ray_data_reads_clips(synthetic_dataset):
    ray = pytest.importorskip("ray")
    started = not ray.is_initialized()
    if started:
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        shards = [str(path) for path in (synthetic_dataset / "shards").iterdir()]
        rows = ray.data.read_webdataset(shards, decoder=False).take_all()
        assert len(rows) == 24
        row = next(row for row in rows if row["__key__"] == "asset-002__a1__dynamic_orbit__o0")
        clip = read_clip(synthetic_dataset, "asset-002", "Jump", "dynamic_orbit")
        assert tuple(row[f"{i:03d}.webp"] for i in range(8)) == clip.frames
        parts = [str(path) for path in (synthetic_dataset / "index").iterdir()]
        table = ray.data.read_parquet(parts).select_columns(["uid", "rig"]).to_pandas()
        assert (table.rig == "static_orbit").sum() == 8
    finally:
        if started:
            ray.shutdown()


@pytest.mark.parametrize("place", ["s3", "memory"])
def test_remote_datasets_are_written_verified_and_loaded(place, request, make_dataset, synthetic_dataset):
    uri = f"{request.getfixturevalue('bucket')}/data" if place == "s3" else "memory://remote-test/data"
    make_dataset(uri, shard_bytes=40_000)
    seen = verify(uri)
    assert seen.findings == [] and seen.shards > 1
    assert seen.digest == verify(str(synthetic_dataset)).digest
    near, far = OrbitDataset(synthetic_dataset, size=16), OrbitDataset(uri, size=16, where="coverage > 0")
    # Forked loader workers open connections of their own.
    for a, b in zip(near, DataLoader(far, batch_size=None, num_workers=2)):
        assert a["uid"] == b["uid"]
        np.testing.assert_array_equal(a["dynamic"].numpy(), b["dynamic"].numpy())
    writer = DatasetWriter(uri, {"frames": 8})
    assert len(writer.finished()) == 6
    assert decode(read_clip(uri, "asset-000").frames[0]).shape == (32, 32, 4)


def test_one_request_per_clip_on_s3(bucket, make_dataset, caplog):
    uri = f"{bucket}/ranged"
    make_dataset(uri, assets=1)
    data = OrbitDataset(uri)
    data[0]
    with caplog.at_level("INFO", logger="werkzeug"):
        caplog.clear()
        item = data[0]
        requests = [record.getMessage() for record in caplog.records if "HTTP/1.1" in record.getMessage()]
    assert "static" in item and "front" in item
    # 206 is "partial content": three clips, three ranged reads, nothing else.
    assert len(requests) == 3, requests
    assert all("GET /orbit/ranged/shards/" in line and " 206 " in line for line in requests)


def test_a_bucket_that_cannot_be_read_is_one_clear_line(bucket, monkeypatch):
    with pytest.raises(InputError, match="s3://no-such-bucket/d"):
        Index("s3://no-such-bucket/d")
    with pytest.raises(InputError, match="s3://no-such-bucket/d"):
        DatasetWriter("s3://no-such-bucket/d", {})
    # A port where nobody listens.
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputError, match="check the address and the credentials"):
        Index("s3://orbit/elsewhere")
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_unknown_scheme_is_one_clear_line():
    with pytest.raises(InputError, match="nosuchscheme"):
        Index("nosuchscheme://bucket/x")
