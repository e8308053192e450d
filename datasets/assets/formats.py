"""Asset formats by file name."""

from __future__ import annotations

#: File name suffix -> format name; what the render side can load.
FORMATS = {
    f".{name}": name
    for name in [
        "glb",
        "gltf",
        "fbx",
        "obj",
        "usd",
        "usda",
        "usdc",
        "usdz",
        "abc",
        "blend",
        "ply",
        "stl",
        "dae",
    ]
}
