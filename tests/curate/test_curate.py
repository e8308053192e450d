"""The command end to end: Blender measures small assets made on the spot, and real ones."""

from __future__ import annotations

import base64
import io
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from orbit4d.curate import columns, measure
from orbit4d.curate.cli import command
from orbit4d.curate.measuring import MEASURE_VERSION, MeasureSettings, measure_sources
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import decide
from orbit4d.datasets.assets.inspect import inspect
from orbit4d.datasets.assets.inspection import BadFile
from orbit4d.datasets.core.errors import InputError, OrbitError
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.render.fleet.child import BlenderChild, ChildError, TaskRefused
from orbit4d.render.fleet.settings import FleetSettings

pytestmark = [pytest.mark.blender, pytest.mark.usefixtures("shared_ray")]

HOP = [(0, 0, 0), (0, 0, 0.3), (0, 0, 0)]


def curate(*arguments: object) -> list[str]:
    """Run the command; its lines. Its own errors are raised."""
    result = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output.splitlines()


@pytest.fixture(scope="module")
def child():
    with BlenderChild(threads=1) as child:
        yield child


def measured(child, path, previews="none") -> list[dict]:
    payload = {"path": str(path), "previews": previews, "preview_size": 48, "preview_samples": 1}
    return child.call("measure", payload, 120)["actions"]


def test_a_known_hop_is_measured_exactly(child, make_cube, tmp_path):
    [row] = measured(child, make_cube(tmp_path / "hop.glb", {"hop": HOP}, seconds=2.0))
    # A unit cube: 0.3 up over twice the distance of a corner from the centre.
    assert row["motion_geometry"] == pytest.approx(0.3 / math.sqrt(3), rel=1e-3)
    assert row["motion_rigid"] == pytest.approx(row["motion_geometry"], rel=1e-3)
    assert row["motion_nonrigid"] < 1e-4 and row["turn_deg"] < 0.1
    assert 0.3 < row["motion_shape"] / row["motion_geometry"] <= 1.0
    assert (row["window_start"], row["window_end"]) == pytest.approx((0.0, 2.0))
    assert row["union_growth"] == pytest.approx(1.3, rel=1e-3)
    assert row["speed_mean"] == pytest.approx(0.3 / math.sqrt(3), rel=1e-2)
    assert row["loop_gap"] < 1e-3 and row["torn_edges"] == 0.0
    assert len(row["coverage_views"]) == len(row["out_of_frame_views"]) == 24


def test_a_still_first_action_does_not_hide_a_moving_second(child, make_cube, tmp_path):
    still, hop = measured(child, make_cube(tmp_path / "two.glb", {"still": [(0, 0, 0)] * 3, "hop": HOP}))
    assert still["window_start"] is None and still["motion_geometry"] == 0.0
    assert hop["motion_geometry"] > 0.1 and hop["action_index"] == 1


def test_motion_between_sparse_samples_is_seen(child, make_cube, tmp_path):
    # Displaced only between the even eighths of the clip: what nine samples never see.
    places = [(0, 0, 0.4 if i % 8 == 4 else 0) for i in range(65)]
    [row] = measured(child, make_cube(tmp_path / "beat.glb", {"beat": places}, seconds=4.0))
    assert row["motion_geometry"] > 0.2


def test_previews_compare_the_window(child, make_cube, tmp_path):
    slide = [(0, 0, 0), (0.5, 0, 0), (0, 0, 0)]
    [row] = measured(child, make_cube(tmp_path / "slide.glb", {"slide": slide}), "both")
    assert row["ssim_half"] < row["ssim_quarter"] < 0.95
    # Its box is the whole frame here, where the sums differ in their last digit.
    assert row["ssim_object_half"] <= row["ssim_half"] + 1e-12
    # Furthest away at half of it.
    assert row["ssim_object_peak"] == row["ssim_object_half"]
    # A plain cube from the front is one face in one colour.
    assert row["alpha_coverage"] > 0.1 and row["flat"]
    assert row["preview"] and row["ssim_half_raw"] == pytest.approx(row["ssim_half"], abs=0.01)


def test_a_motion_that_the_paper_s_moments_miss_is_pictured_at_its_peak(child, make_cube, tmp_path):
    # Away at an eighth of the window alone; at a quarter and at half of it the cube is back.
    places = [(0.4 if i == 2 else 0, 0, 0.001 * (i % 2)) for i in range(17)]
    [row] = measured(child, make_cube(tmp_path / "twitch.glb", {"twitch": places}, seconds=4.0), "window")
    assert row["ssim_object_quarter"] > 0.95 and row["ssim_object_half"] > 0.95
    assert row["ssim_object_peak"] < 0.8


def test_only_the_box_of_the_object_is_traced_and_nothing_of_it_is_cut_off(child, make_cube, tmp_path):
    # glTF is Y up. Scaled to 1, the cube's front is 1.5 away; up there it is still whole inside the frame.
    path = make_cube(tmp_path / "up.glb", {"up": [(0, 0, 0), (0, 0.02, 0), (0, 0.04, 0)]})
    [row] = measured(child, path, "window")
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["preview"]))).convert("RGBA"))
    first, _, half = (strip[:, i * 48 : (i + 1) * 48, 3] > 127 for i in range(3))
    assert first.sum() == pytest.approx((48 * 0.5 / 1.5 / math.tan(math.radians(39.5978 / 2))) ** 2, rel=0.05)
    assert half.sum() == pytest.approx(first.sum(), rel=0.05)
    rows = [np.flatnonzero(picture.any(axis=1)) for picture in (first, half)]
    assert rows[1].mean() < rows[0].mean() and rows[1].min() > 0


def test_moving_and_scaling_the_asset_changes_no_measure(child, make_cube, cube_document, pack_glb, tmp_path):
    [plain] = measured(child, make_cube(tmp_path / "plain.glb", {"hop": HOP}))
    doc, binary = cube_document()
    # The same cube below a node that turns it a quarter about the vertical axis, shrinks and moves it.
    half = math.sqrt(0.5)
    doc["nodes"].append(
        {"children": [0], "translation": [5, 2, -3], "rotation": [0, half, 0, half], "scale": [0.02] * 3}
    )
    doc["scenes"][0]["nodes"] = [1]
    (tmp_path / "moved.glb").write_bytes(pack_glb(doc, binary))
    doc["nodes"][1] |= {"rotation": [0, 0, 0, 1]}
    [moved] = measured(child, tmp_path / "moved.glb")
    # glTF is Y up: (0, 0, 0.3) there is a step towards -Y here.
    for name in ("motion_geometry", "motion_rigid", "union_growth", "drift", "coverage_mean", "coverage_min"):
        assert moved[name] == pytest.approx(plain[name], abs=2e-3), name
    for name in ("coverage_views", "out_of_frame_views"):
        np.testing.assert_allclose(np.sort(moved[name]), np.sort(plain[name]), atol=4e-3, err_msg=name)


def test_an_action_that_overflows_is_refused_alone(child, cube_document, pack_glb, tmp_path):
    doc, binary = cube_document()
    sampler = doc["animations"][0]["samplers"][0]
    view = doc["bufferViews"][doc["accessors"][sampler["output"]]["bufferView"]]
    at = view["byteOffset"] + 12
    binary = binary[:at] + np.array([3e38, 0, 0], np.float32).tobytes() + binary[at + 12 :]
    doc["nodes"].append({"children": [0], "scale": [1e6, 1e6, 1e6]})
    doc["scenes"][0]["nodes"] = [1]
    (tmp_path / "burst.glb").write_bytes(pack_glb(doc, binary))
    assert inspect(tmp_path / "burst.glb").n_animations == 1
    [row] = measured(child, tmp_path / "burst.glb", "window")
    assert (row["status"], row["failure"]) == ("refused", "bad_file:non_finite")


def test_a_file_without_anything_to_see_is_refused(child, tmp_path):
    (tmp_path / "empty.obj").write_text("# nothing\n")
    with pytest.raises(TaskRefused) as caught:
        measured(child, tmp_path / "empty.obj")
    assert caught.value.reason.startswith("bad_file:")


@pytest.mark.parametrize("suffix", ["glb", "fbx", "usdz", "usdc", "blend", "abc", "ply"])
def test_flipped_and_cut_files_are_measured_or_refused_with_a_reason(child, cubes, tmp_path, suffix):
    rng = np.random.default_rng(5)
    for k in range(6):
        data = np.frombuffer(cubes[suffix].read_bytes(), np.uint8).copy()
        if k == 0:
            data = data[: int(rng.integers(1, len(data)))]
        else:
            at = rng.integers(0, len(data), 4 * k)
            data[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
        path = tmp_path / f"{k}.{suffix}"
        path.write_bytes(data.tobytes())
        try:
            inspect(path)
            rows = measured(child, path, "window")
        except (BadFile, ChildError) as refused:
            # Blender itself may still give up on what passes the look; that costs its child and has a code.
            code = refused.code if isinstance(refused, BadFile) else refused.reason
            assert code.startswith("bad_file:") or code in ("crash", "error", "memory"), code
        else:
            json.dumps(rows, allow_nan=False)


@pytest.fixture(scope="module")
def mixed(make_cube, tmp_path_factory):
    """A folder with one asset of every fate, and the table that `curate` makes of it."""
    folder = tmp_path_factory.mktemp("mixed") / "in"
    folder.mkdir()
    make_cube(folder / "good.glb", {"still": [(0, 0, 0)] * 3, "hop": HOP}, extras={"license": "CC0-1.0"})
    make_cube(folder / "still.glb")
    make_cube(folder / "nearly.glb", {"sway": [(0, 0, 0), (0.003, 0, 0), (0, 0, 0)]})
    make_cube(folder / "gone.glb", {"fly": [(0, 0, 0), (0, 20, 0)]})
    (folder / "again.glb").write_bytes((folder / "good.glb").read_bytes())
    (folder / "cut.glb").write_bytes((folder / "good.glb").read_bytes()[:700])
    out = folder.parent / "table.parquet"
    lines = curate(folder, "--out", out, "--preview-size", 48, "--workers", 1)
    return folder, out, lines


def test_every_input_is_accounted_for_with_its_reason(mixed):
    _, out, lines = mixed
    assert "input 6 = measured 4 + rejected 1 + failed 0 + duplicate 1" in lines
    rows = pq.read_table(out).to_pylist()
    found = {(row["uid"], row["action"]): (row["verdict"], row["reasons"]) for row in rows}
    assert found[("again", "hop")] == ("accepted", [])
    assert found[("again", "still")] == ("rejected", ["static"])
    assert found[("still", "")] == ("rejected", ["static"])
    assert found[("nearly", "sway")] == ("rejected", ["low_motion"])
    assert found[("gone", "fly")][0] == "rejected" and "flies_away" in found[("gone", "fly")][1]
    assert found[("cut", "")] == ("rejected", ["bad_file:truncated"])
    assert len(found) == len(rows) == 6
    assert {row["license"] for row in rows if row["uid"] == "again"} == {"CC0-1.0"}
    assert not out.with_name(out.name + ".journal").exists()


def test_the_table_is_described_and_other_readers_open_it(mixed):
    _, out, _ = mixed
    table = pq.read_table(out)
    info = columns.info_of(table)
    assert (
        info["rules"]["min_motion"] == Rules().min_motion
        and info["versions"]["bpy"]
        and info["measure"]["preview_size"] == 48
    )
    assert table.schema.field("motion_geometry").metadata[b"description"]
    assert len(table.to_pandas()) == table.num_rows
    polars = pytest.importorskip("polars")
    assert polars.read_parquet(out).height == table.num_rows
    duckdb = pytest.importorskip("duckdb")
    query = f"select count(*) from '{out}' where list_contains(reasons, 'static')"
    assert duckdb.sql(query).fetchall() == [(2,)]


def test_the_table_is_a_source_for_render(mixed):
    _, out, _ = mixed
    [asset] = resolve([str(out)]).assets
    assert (asset.uid, asset.actions, asset.license) == ("again", (1,), "CC0-1.0")


def test_deciding_again_never_starts_blender(mixed, monkeypatch, tmp_path):
    _, out, _ = mixed

    def forbidden(*args, **kwargs):
        raise AssertionError("a fleet was started")

    monkeypatch.setattr("orbit4d.render.fleet.driver.run_fleet", forbidden)
    curate(out, "--min-motion", "0.001", "--out", tmp_path / "loose.parquet")
    rows = {row["uid"]: row["verdict"] for row in pq.read_table(tmp_path / "loose.parquet").to_pylist()}
    assert rows["nearly"] == "accepted"
    assert columns.info_of(pq.read_table(tmp_path / "loose.parquet"))["rules"]["min_motion"] == 0.001


def test_a_second_run_measures_nothing_and_a_new_asset_is_added(mixed, make_cube, monkeypatch, tmp_path):
    folder, out, _ = mixed
    before = pq.read_table(out)

    def forbidden(*args, **kwargs):
        raise AssertionError("a fleet was started")

    monkeypatch.setattr("orbit4d.render.fleet.driver.run_fleet", forbidden)
    lines = curate(folder, "--out", out, "--preview-size", 48)
    assert "input 6 = measured 4 (5 known already) + rejected 1 + failed 0 + duplicate 1" in lines
    assert pq.read_table(out).equals(before)
    make_cube(tmp_path / "new.glb", {"hop": HOP})
    with pytest.raises(AssertionError, match="fleet was started"):
        curate(folder, tmp_path / "new.glb", "--out", out, "--preview-size", 48)


def test_a_killed_run_goes_on_where_it_stopped(mixed, make_cube, monkeypatch, tmp_path):
    folder, _, _ = mixed
    settings = MeasureSettings("none")
    journal = tmp_path / "journal"
    journal.write_text(
        json.dumps(
            {
                "measure_version": MEASURE_VERSION,
                "previews": "none",
                "preview_size": 128,
                "preview_samples": 4,
            },
            sort_keys=True,
        )
        + "\n"
    )
    [asset] = resolve([str(folder / "nearly.glb")]).assets
    row = {"action": "sway", "action_index": 0, "status": "measured", "motion_geometry": 0.5}
    entry = json.dumps({"uid": asset.uid, "sha256": asset.sha256, "rows": [row]})
    with open(journal, "a") as file:
        file.write(entry + "\n" + entry[:40])  # the last line was torn by the kill
    found = measure_sources([asset.path], settings=settings, journal=journal)
    assert found.reused == 1 and found.table["motion_geometry"].to_pylist() == [0.5]
    # Other settings make the notes worthless.
    assert journal.read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{folder}", "--out", "{tmp}/x.csv"], "end its name in .parquet"),
        (["{folder}", "--out", "{folder}/good.glb/x.parquet"], "no folder you may write to"),
        (["{folder}", "--out", "{out}", "--preview-size", "64"], "with preview_size 48, now it is 64"),
        (["{tmp}/none", "--out", "{tmp}/x.parquet"], "no such file or folder"),
        (["{folder}", "--out", "{tmp}/x.parquet", "--preset", "best"], "no preset 'best'"),
        (["{folder}", "--out", "{tmp}/x.parquet", "--preview-size", "4"], "16 to 1024 pixels"),
        (["{out}", "--preset", "diffusion4d", "--out", "{tmp}/x.parquet"], "--previews both"),
        (["{out}", "--captions", "x.csv", "--out", "{tmp}/x.parquet"], "is measured already"),
        (["{folder}", "--out", "{foreign}"], "is not a table that `orbit4d curate` wrote"),
    ],
)  # fmt: skip
def test_bad_use_is_one_line_and_writes_nothing(mixed, tmp_path, arguments, says):
    folder, out, _ = mixed
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pq.read_table(out, columns=["uid"]), foreign)
    names = {"folder": folder, "out": out, "tmp": tmp_path, "foreign": foreign}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        curate(*[argument.format(**names) for argument in arguments])
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_hanging_asset_fails_and_the_others_are_measured(make_cube, tmp_path, monkeypatch):
    # Nothing loads in a hundredth of a second: the child is ended, and the asset is `failed`, not lost.
    make_cube(tmp_path / "a.glb", {"hop": HOP})
    fleet = FleetSettings(workers=1, attempts=1, asset_timeout=0.01)
    table = measure(str(tmp_path), settings=MeasureSettings("none"), fleet=fleet)
    [row] = decide(table, Rules()).to_pylist()
    assert (row["verdict"], row["reasons"], row["action"]) == ("failed", ["time_out"], "")


def test_real_assets_get_the_right_verdicts(shared, tmp_path):
    names = ["flighthelmet", "nearstill", "flyaway", "kenneychar", "morphstress", "malecasual_fbx"]
    files = [next((shared / "assets").glob(f"dev_{name}.*")) for name in names]
    curate(
        *files, "--out", tmp_path / "t.parquet", "--workers", 1, "--preview-size", 64, "--preview-samples", 1
    )
    rows = {}
    for row in pq.read_table(tmp_path / "t.parquet").to_pylist():
        rows.setdefault(row["uid"].removeprefix("dev_"), []).append(row)
    assert set(rows) == set(names)
    assert [row["reasons"] for row in rows["flighthelmet"]] == [["static"]]
    assert [row["reasons"] for row in rows["nearstill"]] == [["low_motion"]]
    assert "flies_away" in rows["flyaway"][0]["reasons"]
    assert [row["verdict"] for row in rows["kenneychar"]] == ["rejected", "accepted", "accepted", "accepted"]
    assert [row["verdict"] for row in rows["morphstress"]] == ["accepted"] * 3
    assert len(rows["malecasual_fbx"]) == 11
    assert min(row["alpha_coverage"] for row in rows["malecasual_fbx"]) > 0.02
    assert max(row["motion_geometry"] for row in rows["malecasual_fbx"]) > 0.5


def test_errors_are_of_the_house(tmp_path):
    assert issubclass(InputError, OrbitError)
    with pytest.raises(InputError, match="no source"):
        measure([])
