"""Local stand-ins for URIs: what is fetched, when what is uploaded, and what messages name."""

from __future__ import annotations

import uuid
from pathlib import Path

import click
import fsspec
import pytest

from orbit4d.datasets.commands.command import run
from orbit4d.datasets.commands.options import Command, Place
from orbit4d.datasets.core import remote
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.storage import Store


@pytest.fixture
def place() -> str:
    return f"memory://remote-{uuid.uuid4().hex}"


def files(uri: str) -> list[str]:
    return list(Store(uri).tree())


def test_uris_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        remote.is_remote("s3://b/x") and remote.is_remote("memory://x") and remote.is_remote(Path("gs://b/x"))
    )
    assert not any(map(remote.is_remote, ("a/b", "file:///a", "a:b", "run:5/a", Path("run:5/a"), "C:/x")))
    assert remote.local_path("file:///a/b") == Path("/a/b")
    for uri in ("s3://b/x", Path("s3://b/x")):
        with pytest.raises(InputError, match="is a URI"):
            remote.local_path(uri)


def test_a_file_and_a_folder_are_fetched_under_their_names(place: str) -> None:
    Store(place).put("clip.mp4", b"film")
    for name in ("run/model/a.json", "run/checkpoints/step/b", "run/c"):
        Store(place).put(name, name.encode())
    with (
        remote.fetched(f"{place}/clip.mp4") as file,
        remote.fetched(f"{place}/run/", ["checkpoints"]) as folder,
    ):
        assert file.name == "clip.mp4" and file.read_bytes() == b"film"
        assert folder.name == "run"
        assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
            "c",
            "model/a.json",
        ]
        assert remote.named(f"{file}: bad, {folder}/c") == f"{place}/clip.mp4: bad, {place}/run//c"
    assert not file.exists() and not folder.exists()
    with pytest.raises(InputError, match="no such file or folder"), remote.fetched(f"{place}/none"):
        pass


def test_a_run_starts_with_what_is_there_and_markers_come_last(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(f"{place}/run").put("log.jsonl", b"1")
    Store(f"{place}/run").put("old.txt", b"old")
    order: list[str] = []
    upload = Store.upload
    monkeypatch.setattr(Store, "upload", lambda s, name, path: (order.append(name), upload(s, name, path)))
    with pytest.raises(KeyboardInterrupt), remote.stand_in(f"{place}/run", pull=True) as folder:
        assert (folder / "log.jsonl").read_text() == "1"
        (folder / "step-2").mkdir()
        (folder / "step-2" / "state.json").write_text("{}")
        (folder / "step-2" / "weights").write_text("w")
        (folder / ".step-3").mkdir()
        (folder / ".step-3" / "half").write_text("h")
        (folder / "x.partial").write_text("h")
        remote.publish(folder)
        assert order == ["step-2/weights", "step-2/state.json"], "the marker last, the unchanged not at all"
        (folder / "old.txt").unlink()
        raise KeyboardInterrupt
    assert files(f"{place}/run") == ["log.jsonl", "step-2/state.json", "step-2/weights"]


def test_a_file_is_uploaded_only_when_all_went_well(place: str) -> None:
    with pytest.raises(WorkError), remote.stand_in(f"{place}/a.mp4", file=True) as path:
        path.write_bytes(b"half")
        raise WorkError("stopped")
    assert files(place) == []
    with remote.stand_in(f"{place}/a.mp4", file=True) as path:
        assert not remote.taken(path)
        path.write_bytes(b"all")
        (path.parent / "a").mkdir()
        (path.parent / "a" / "0.png").write_bytes(b"png")
    assert files(place) == ["a.mp4", "a/0.png"]
    with remote.stand_in(f"{place}/a.mp4", file=True) as path:
        assert remote.taken(path) and remote.taken(path.with_suffix(""))
        with pytest.raises(InputError, match="is there already"):
            remote.refuse_taken(path, overwrite=False)


def test_an_upload_that_fails_keeps_what_was_made(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise WorkError("connection lost")

    wanted = pytest.raises(WorkError, match="connection lost; what was made is kept in ")
    with wanted as caught, remote.stand_in(f"{place}/b.mp4", file=True) as path:
        path.write_bytes(b"all")
        monkeypatch.setattr(Store, "upload", fail)
    kept = Path(str(caught.value).rpartition(" ")[2])
    assert [p.read_bytes() for p in kept.rglob("b.mp4")] == [b"all"]


def test_a_checkpoint_that_cannot_be_uploaded_is_a_note(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upload = Store.upload

    def fail(*_: object) -> None:
        raise WorkError("connection lost")

    with remote.stand_in(f"{place}/run", pull=True) as folder:
        folder.mkdir()
        (folder / "a").write_text("a")
        monkeypatch.setattr(Store, "upload", fail)
        remote.publish(folder)
        assert "connection lost; tried again later" in capsys.readouterr().err
        monkeypatch.setattr(Store, "upload", upload)
    assert files(f"{place}/run") == ["a"]


def test_of_a_launch_the_first_process_uploads(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    with remote.stand_in(f"{place}/run", pull=True) as folder:
        folder.mkdir()
        (folder / "a").write_text("a")
        remote.publish(folder)
    assert files(f"{place}/run") == []


@click.command(cls=Command)
@click.argument("source", type=Place(as_text=True))
@click.option("--out", type=Place("folder"))
@click.option("--cache", type=Place("local"))
@click.option("--fail", is_flag=True)
def copy(source: str, out: Path | None, cache: Path | None, fail: bool) -> None:
    """Copy a file into a folder."""
    if fail:
        raise InputError(f"{source}: no good")
    if out is not None:
        out.mkdir(parents=True)
        (out / "copy").write_bytes(Path(source).read_bytes())
    click.echo(f"{source} -> {out}")


def test_commands_see_paths_and_users_see_uris(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    Store(place).put("deep/in.bin", b"content")
    assert run(copy, [f"{place}/deep/in.bin", "--out", f"{place}/out"]) == 0
    assert capsys.readouterr().out == f"{place}/deep/in.bin -> {place}/out\n"
    assert fsspec.open(f"{place}/out/copy", "rb").open().read() == b"content"
    assert run(copy, [f"{place}/deep/in.bin", "--fail"]) == 2
    assert capsys.readouterr().err == f"error: {place}/deep/in.bin: no good\n"
    assert run(copy, [f"{place}/none"]) == 2
    assert run(copy, [f"{place}/deep/in.bin", "--cache", f"{place}/c"]) == 2
    assert "a local path is needed" in capsys.readouterr().err
    assert run(copy, ["x", "--out", "nosuch://a/b"]) == 2
    assert capsys.readouterr().err.startswith("error: nosuch://a")


def test_file_uris_and_paths_stay_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").write_bytes(b"x")
    assert run(copy, [f"file://{tmp_path}/in", "--out", f"file://{tmp_path}/out"]) == 0
    assert (tmp_path / "out" / "copy").read_bytes() == b"x"
