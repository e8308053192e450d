"""Ray's token: a local Ray's is kept nowhere, the user's is left alone, and an error names what to set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orbit4d.datasets.commands import ray_token
from orbit4d.datasets.commands.ray_token import passing_token, token_hint

NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without any token; and no Ray is imported for it."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back at the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray_token, "_read_again", lambda: None)


def settings() -> dict[str, str]:
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def test_a_token_passes_with_its_ray() -> None:
    tokens = []
    for _ in range(2):
        with passing_token():
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
            os.environ["RAY_AUTH_MODE"] = "token"  # as Ray does
        assert settings() == {}
    assert len(set(tokens)) == 2 and all(len(token) == 64 for token in tokens)


def test_it_passes_when_ray_does_not_start() -> None:
    with pytest.raises(RuntimeError), passing_token():
        raise RuntimeError("no ports")
    assert settings() == {}


@pytest.mark.parametrize(
    "given",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "mine"}, {"RAY_AUTH_TOKEN_PATH": "/run/token"}],
)
def test_what_the_user_has_set_stays(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with passing_token():
        assert settings() == given
    assert settings() == given


def test_a_kept_token_is_used_and_named(tmp_path: Path) -> None:
    assert "RAY_AUTH_MODE=token" in token_hint()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("kept")
    with passing_token():
        assert settings() == {}
    assert "~/.ray/auth_token" in token_hint() and "RAY_AUTH_MODE=disabled" in token_hint()
