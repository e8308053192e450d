"""A file that is missing for the time of an outage is no missing file."""

from __future__ import annotations

import fsspec
import pytest

from orbit4d.datasets.core.errors import StorageFault
from orbit4d.datasets.core.paths import localize


def test_a_place_that_comes_back_between_two_questions_is_a_fault_of_storage(tmp_path, monkeypatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/outage/a.glb", b"glTF")
    opened = memory.__class__._open
    gone = [True]

    def once_gone(self, path, *rest, **named):
        if gone:
            gone.clear()
            raise FileNotFoundError(path)
        return opened(self, path, *rest, **named)

    monkeypatch.setattr(memory.__class__, "_open", once_gone)
    with pytest.raises(StorageFault, match="was gone for a time"):
        localize("memory://outage/a.glb", str(tmp_path))
    assert localize("memory://outage/a.glb", str(tmp_path))
    memory.rm("/outage", recursive=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError):
        localize("memory://outage/a.glb", str(tmp_path / "other"))
