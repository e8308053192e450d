"""The umbrella: help, suggestions, listing, exporting in any order of words, exit codes, doctor."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from orbit4d.app import doctor
from orbit4d.app.cli import COMMANDS, command
from orbit4d.datasets.commands.command import one_line, run
from orbit4d.datasets.core.storage import Store


def error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err.strip()
    assert text.splitlines()[-1].startswith("error: ") and "Traceback" not in text
    return text.splitlines()[-1]


@pytest.mark.parametrize(
    "words", [[name] for name in COMMANDS] + [["eval", "video"], ["eval", "run"]], ids=" ".join
)
def test_h_helps_everywhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, [*words, "-h"]) == 0
    assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "meant"),
    [("curat", "curate"), ("verfy", "verify"), ("recon", "recon4d"), ("rendr", "render"), ("lst", "list")],
)
def test_a_misspelt_command_is_guessed(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, [word]) == 2
    assert f"did you mean `{meant}`" in error(capsys)


def test_a_misspelt_command_of_a_group_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, ["eval", "vidoe"]) == 2
    assert "did you mean `video`" in error(capsys)
    assert run(command, ["zzzzzz"]) == 2
    assert "curate" in error(capsys), "without a near one they are named"


# list -------------------------------------------------------------------------------------------------------


def test_list_names_the_clips(synthetic_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, ["list", str(synthetic_dataset)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split("\t")[:4] == ["uid", "action", "rig", "orbit"]
    assert len(lines) == (6 + 2) * 3  # two of the six assets have two actions
    where = ["--where", "action = 'Jump' and rig = 'front_view'"]
    assert run(command, ["list", str(synthetic_dataset), *where, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["uid"] for row in rows] == ["asset-002", "asset-005"]
    assert run(command, ["list", str(synthetic_dataset), "--where", "license = 'CC-BY-4.0'", "--uids"]) == 0
    assert capsys.readouterr().out.split() == ["asset-001", "asset-003", "asset-005"]
    assert run(command, ["list", str(synthetic_dataset), "--where", "orbit > 7"]) == 2
    assert "no clip that matches" in error(capsys)


def test_messages_name_list(synthetic_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, ["recon4d", f"{synthetic_dataset}:fox", "--out", "never"]) == 2
    assert "orbit4d list" in error(capsys)


# export -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["{ds}", "--format", "frames", "--out", "{out}", "--where", "uid = 'asset-003'"],
        ["--format", "frames", "{ds}", "--out", "{out}", "--where", "uid = 'asset-003'"],
        ["--format=frames", "--where=uid = 'asset-003'", "--out", "{out}", "{ds}"],
        [
            "--split",
            "train",
            "--where",
            "uid = 'asset-003'",
            "--out",
            "{out}",
            "--format",
            "frames",
            "--",
            "{ds}",
        ],
    ],
)
def test_options_of_export_stand_anywhere(
    words: list[str], synthetic_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(ds=synthetic_dataset, out=tmp_path / "out") for word in words]
    assert run(command, ["export", *given]) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_options_of_a_scene_s_export_stand_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "scene.json").write_text("{}")
    words = [
        "--format",
        "splat",
        "--time",
        "0.5",
        str(tmp_path / "scene"),
        "--out",
        str(tmp_path / "a.splat"),
    ]
    assert run(command, ["export", *words]) == 2
    assert "scene format None" in error(capsys), "the scene's own export was asked"
    for lacking in ([], ["--format", "splat"]):
        assert run(command, ["export", *lacking]) == 2
        assert "DATASET or SCENE" in error(capsys)


def test_export_names_a_place_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And does not take it for a dataset, which has other formats and options."""
    words = ["export", str(tmp_path / "a.scene"), "--format", "splat", "--time", "0.5", "--out", "a.splat"]
    assert run(command, words) == 2
    assert "a.scene: no such dataset or scene" in error(capsys)


# Results at URIs, and exit codes ----------------------------------------------------------------------------


def test_an_evaluation_at_a_uri_is_resumed(
    synthetic_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = f"memory://results-{uuid.uuid4().hex}/e"
    words = ["eval", "dataset", str(synthetic_dataset), "--out", out]
    assert run(command, words) == 0
    assert f"{out}/results.json, {out}/index.html" in capsys.readouterr().out
    rows = Store(out).read("rows.jsonl")
    assert rows.count(b"\n") == 24
    Store(out).put("rows.jsonl", b"".join(rows.splitlines(keepends=True)[:7]))
    assert run(command, words) == 0
    assert Store(out).read("rows.jsonl").count(b"\n") == 24
    assert run(command, ["eval", "dataset", str(synthetic_dataset), "--split", "train", "--out", out]) == 2
    assert f"{out}: holds an evaluation with another split" in error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_the_demo_is_refused_at_a_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(command, ["demo", "--out", "s3://bucket/demo"]) == 2
    assert "a local path is needed" in error(capsys) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "part", "code"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied; choose", 1),
        (OSError(30, "Read-only file system", "/ro/x"), "/ro/x: Read-only file system; choose", 1),
        (RuntimeError("surprise"), "RuntimeError: surprise (run again with --debug", 1),
    ],
)
def test_raw_errors_name_the_mend(given: Exception, part: str, code: int) -> None:
    text, exit_code = one_line(given)
    assert part in text and exit_code == code


def test_errors_of_cloud_clients_name_the_uri() -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    for given in (
        exceptions.NoCredentialsError(),
        exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    ):
        text, code = one_line(given, ["curate", "s3://bucket/t.csv", "--out", "x"])
        assert text.startswith("s3://bucket/t.csv: ") and "credentials" in text and code == 2


# doctor -----------------------------------------------------------------------------------------------------


def test_what_only_tests_need_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = doctor.SystemPackage.present
    monkeypatch.setattr(doctor.SystemPackage, "present", lambda p: p.needed_by != "browser tests" and real(p))
    code = run(command, ["doctor"])
    out = capsys.readouterr().out
    [line] = [line for line in out.splitlines() if " chromium " in line and "apt-get" not in line]
    assert line.split()[0] == "warning"
    missing = [line for line in out.splitlines() if line.split()[:1] == ["MISSING"]]
    assert code == (1 if missing else 0)
    for name in ("gsply", "ray[default]", "boto3", "gcsfs", "rembg"):
        assert any(name in line.split() for line in out.splitlines()), name


def test_nothing_imported_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_dataset: Callable[..., Path]
) -> None:
    """All folders rejected: exit 1 with the counts."""
    folder = tmp_path / "published" / "fox"
    (folder / "front").mkdir(parents=True)
    for i in range(24):
        (folder / f"multi_frame{i}.png").write_bytes(b"no image")
    code = run(command, ["import", str(tmp_path / "published"), "--out", str(tmp_path / "ds")])
    out, err = capsys.readouterr()
    assert code == 1, (out, err)
    assert "folders rejected" in err
