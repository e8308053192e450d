"""The page of a scene, in one file or as an embeddable pair."""

from __future__ import annotations

import base64
import html
import json
from functools import cache
from importlib.resources import files
from pathlib import Path

from orbit4d.recon4d.export.html.packing import player_data
from orbit4d.recon4d.scene import Scene

#: Parts of the player in the order in which they stand in one script.
_PARTS = ("unpacking.js", "sorting.js", "drawing.js", "controls.js", "player.js")
#: A page larger than this is reported.
LARGE = 1_000_000


@cache
def _part(name: str) -> str:
    return files("orbit4d.recon4d.export.html").joinpath(name).read_text(encoding="utf-8")


def viewer_script() -> str:
    """viewer.js: `Orbit4D.mount(element, {src: "scene.bin"})` shows a scene."""
    style = f"const STYLE = {_quoted(_part('player.css'))};\n"
    parts = "\n".join(_part(name) for name in _PARTS)
    body = f"'use strict';\n{style}{parts}\nreturn {{ mount }};"
    return f"{_part('head.js')}\nconst Orbit4D = (() => {{\n{body}\n}})();\n"


def _quoted(text: str) -> str:
    return json.dumps(text)


def page(
    scene: Scene, title: str, seconds: float = 2.0, times: int | None = None, quantised: bool = True
) -> str:
    """One self-contained HTML file that opens from disk."""
    data, _ = player_data(scene, times, quantised, seconds)
    text = _part("page.html")
    parts = {
        "@TITLE@": html.escape(title),
        "@SCRIPT@": viewer_script().replace("</script", "<\\/script"),
        "@DATA@": base64.b64encode(data).decode(),
    }
    for mark, value in parts.items():
        text = text.replace(mark, value)
    return text


def write_viewer(scene: Scene, folder: Path, title: str, seconds: float = 2.0) -> None:
    """viewer.js, scene.bin and an index.html that joins them, to be served."""
    data, _ = player_data(scene, seconds=seconds)
    (folder / "viewer.js").write_text(viewer_script(), encoding="utf-8")
    (folder / "scene.bin").write_bytes(data)
    text = _part("embed.html").replace("@TITLE@", html.escape(title))
    (folder / "index.html").write_text(text, encoding="utf-8")
