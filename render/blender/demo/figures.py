# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside Blender: imports bpy, which is GPL.
"""The demo's figures: a robot and a flower of parts on bones, a slime and a jellyfish of morph targets."""

from __future__ import annotations

import numpy as np

from orbit4d.render.blender.demo import kit
from orbit4d.render.blender.demo.creatures import TAU, painted_eye
from orbit4d.render.blender.demo.forms import Array, lathe, moved, paint, rgb, smoothstep, sphere, tube


def robot() -> None:
    """A tin robot with three actions: Idle holds still, Jump crouches and leaps, Wave greets."""
    look = {
        "shell": "#d9a441",
        "dark": "#3d4654",
        "joint": "#7c8794",
        "face": "#26313d",
        "glow": "#6fd3cf",
        "red": "#cc5645",
    }
    parts = kit.Parts(look)
    parts.add(kit.box((0.46, 0.34, 0.44), (0, 0, 0.72), 0.07, 3), "shell", "torso")
    parts.add(kit.box((0.26, 0.04, 0.2), (0, -0.165, 0.73), 0.03), "dark", "torso")
    for i, light in enumerate(("glow", "red", "shell")):
        parts.add(moved(sphere(0.028, 12, 8), (-0.07 + 0.07 * i, -0.19, 0.76)), light, "torso")
    parts.add(kit.box((0.17, 0.02, 0.03), (0, -0.187, 0.69), 0.008), "joint", "torso")
    parts.add(lathe([(0, 0.92), (0.08, 0.92), (0.08, 1.0), (0, 1.0)], 16), "joint", "torso", smooth=False)
    parts.add(kit.box((0.50, 0.38, 0.36), (0, 0, 1.17), 0.09, 3), "shell", "head")
    parts.add(kit.box((0.40, 0.06, 0.22), (0, -0.175, 1.18), 0.05, 3), "face", "head")
    for x in (-0.095, 0.095):
        parts.add(moved(sphere(0.052, 16, 10), (x, -0.195, 1.20), (1, 0.5, 1)), "glow", "head")
        parts.add(
            moved(
                lathe([(0, -0.03), (0.07, -0.03), (0.07, 0.03), (0, 0.03)], 16),
                (2.75 * x, 0, 1.18),
                1.0,
                (0, 90, 0),
            ),
            "dark",
            "head",
            smooth=False,
        )
    parts.add(kit.box((0.13, 0.02, 0.022), (0, -0.205, 1.115), 0.008), "glow", "head")
    parts.add(tube([(0, 0, 1.34), (0, 0, 1.44), (0, 0.0, 1.50)], 0.016, 8), "joint", "head")
    parts.add(moved(sphere(0.048, 14, 10), (0, 0, 1.53)), "red", "head")
    for side, x in (("L", 1), ("R", -1)):
        parts.add(moved(sphere(0.085, 16, 10), (0.285 * x, 0, 0.86)), "joint", f"arm{side}")
        parts.add(kit.box((0.11, 0.13, 0.24), (0.31 * x, 0, 0.72), 0.04), "dark", f"arm{side}")
        parts.add(moved(sphere(0.06, 14, 8), (0.31 * x, 0, 0.585)), "joint", f"fore{side}")
        parts.add(kit.box((0.13, 0.15, 0.2), (0.31 * x, 0, 0.47), 0.045), "shell", f"fore{side}")
        for dy in (-0.045, 0.045):
            parts.add(kit.box((0.07, 0.035, 0.09), (0.31 * x, dy, 0.35), 0.015), "dark", f"fore{side}")
        parts.add(kit.box((0.13, 0.15, 0.2), (0.125 * x, 0, 0.41), 0.04), "dark", f"leg{side}")
        parts.add(moved(sphere(0.07, 14, 8), (0.125 * x, 0, 0.30)), "joint", f"shin{side}")
        parts.add(kit.box((0.15, 0.17, 0.19), (0.125 * x, 0, 0.19), 0.04), "shell", f"shin{side}")
        parts.add(kit.box((0.18, 0.28, 0.09), (0.125 * x, -0.035, 0.055), 0.035), "dark", f"foot{side}")
    body = parts.build("robot")
    bones: dict[str, tuple] = {
        "root": ((0, 0, 0.5), (0, 0, 0.6), 0, None),
        "torso": ((0, 0, 0.52), (0, 0, 0.92), 0, "root"),
        "head": ((0, 0, 0.97), (0, 0, 1.3), 0, "torso"),
    }
    for side, x in (("L", 1), ("R", -1)):
        bones[f"arm{side}"] = ((0.29 * x, 0, 0.86), (0.31 * x, 0, 0.59), 0, "torso")
        bones[f"fore{side}"] = ((0.31 * x, 0, 0.585), (0.31 * x, 0, 0.35), 0, f"arm{side}")
        bones[f"leg{side}"] = ((0.125 * x, 0, 0.5), (0.125 * x, 0, 0.30), 0, "root")
        bones[f"shin{side}"] = ((0.125 * x, 0, 0.30), (0.125 * x, 0, 0.10), 0, f"leg{side}")
        bones[f"foot{side}"] = ((0.125 * x, 0, 0.10), (0.125 * x, -0.1, 0.05), 0, f"shin{side}")
    rig = kit.armature("robot_rig", bones)
    kit.bind(body, rig)

    def crouch(amount: float) -> dict:
        bend = 42 * amount
        pose: dict = {"root": {"shift": (0, 0, -0.10 * amount)}, "torso": {"turn": (0.35 * bend, 0, 0)}}
        for side in "LR":
            pose[f"leg{side}"] = {"turn": (-bend, 0, 0)}
            pose[f"shin{side}"] = {"turn": (2 * bend, 0, 0)}
            pose[f"foot{side}"] = {"turn": (-bend, 0, 0)}
        return pose

    def jump(t: float) -> kit.Pose:
        squat = float(np.interp(t, [0, 0.22, 0.32, 0.70, 0.80, 1], [0, 1, 0, 0, 0.9, 0]))
        air = float(np.clip((t - 0.30) / 0.42, 0, 1))
        pose = crouch(squat)
        pose["root"]["shift"] = (0, 0, pose["root"]["shift"][2] + 0.34 * 4 * air * (1 - air))
        lift = 4 * air * (1 - air)
        for side, x in (("L", 1), ("R", -1)):
            pose[f"arm{side}"] = {"turn": (30 * squat, -x * 95 * lift, 0)}
            pose[f"fore{side}"] = {"turn": (-30 * squat, -x * 25 * lift, 0)}
            pose[f"leg{side}"]["turn"] = (pose[f"leg{side}"]["turn"][0] - 22 * lift, -x * 14 * lift, 0)
            pose[f"shin{side}"]["turn"] = (pose[f"shin{side}"]["turn"][0] + 34 * lift, 0, 0)
        pose["head"] = {"turn": (-12 * lift + 8 * squat, 0, 0)}
        return pose

    def wave(t: float) -> kit.Pose:
        up = float(smoothstep(0, 0.18, t) * smoothstep(1, 0.82, t))
        swing = np.sin(3 * TAU * t) * up
        return {
            "root": {"shift": (0, 0, 0.008 * np.sin(2 * TAU * t) * up)},
            "torso": {"turn": (0, 5 * up, 4 * swing)},
            "head": {"turn": (0, 9 * up + 4 * swing, -6 * swing)},
            "armL": {"turn": (0, -128 * up + 8 * swing, 0)},
            "foreL": {"turn": (0, -20 * up - 34 * swing, 0)},
            "armR": {"turn": (6 * swing, 10 * up, 0)},
        }

    kit.animate(rig, "Idle", (0, 24), lambda t: {})
    kit.animate(rig, "Jump", range(37), jump)
    kit.animate(rig, "Wave", range(61), wave)


def slime() -> None:
    """A drop of slime: four morph targets (squash, stretch, lean, ripple) make it hop and wobble."""
    ball, faces = sphere(0.5, 40, 26)
    lift = smoothstep(-0.5, 0.5, ball[:, 2])
    rest = ball * [1, 1, 0.92]
    rest[:, :2] *= (1.16 - 0.42 * lift**1.6)[:, None]
    rest[:, 2] = np.maximum(rest[:, 2], -0.36)
    rest[:, 2] += 0.36
    x, y, z = rest.T

    def colour(p: Array) -> Array:
        skin = rgb("#58b368") + 0.0 * p
        skin = paint(skin, "#9fd06a", smoothstep(0.25, 0.85, p[:, 2]))
        skin = paint(skin, "#2f8a68", smoothstep(0.22, 0.0, p[:, 2]))
        swirl = np.cos(5 * np.arctan2(p[:, 1], p[:, 0]) + 9 * p[:, 2])
        skin = paint(skin, "#7cc76b", 0.7 * smoothstep(0.55, 0.75, swirl) * smoothstep(0.75, 0.5, p[:, 2]))
        smile = np.abs(np.hypot(p[:, 0], p[:, 2] - 0.385) - 0.088)
        skin = paint(
            skin, "#1d4a44", smoothstep(0.02, 0.011, smile) * (p[:, 1] < 0) * smoothstep(0.345, 0.33, p[:, 2])
        )
        blush = np.hypot(np.abs(p[:, 0]) - 0.25, p[:, 2] - 0.34)
        skin = paint(skin, "#e39b7b", 0.7 * smoothstep(0.055, 0.03, blush) * (p[:, 1] < 0))
        return painted_eye(skin, p, (0.155, -0.415, 0.445), 0.066)

    thing = kit.painted("slime", (rest, faces), colour, 512)
    high = z / 0.8
    squash = np.stack([x * (1.28 - 0.1 * high), y * (1.28 - 0.1 * high), z * 0.58], axis=1)
    stretch = np.stack([x * (0.80 - 0.12 * high), y * (0.80 - 0.12 * high), z * 1.34], axis=1)
    lean = np.stack([x + 0.30 * high**1.5, y, z - 0.05 * x * high], axis=1)
    ripple = rest * (1 + 0.10 * np.sin(11 * z) * smoothstep(0.02, 0.2, z) * smoothstep(0.85, 0.6, z))[
        :, None
    ] * [1, 1, 0] + rest * [0, 0, 1]

    def weights(t: float) -> dict[str, float]:
        a = 2 * TAU * t
        bounce = np.sin(a)
        return {
            "squash": max(0.0, -bounce) ** 0.8,
            "stretch": 0.95 * max(0.0, bounce),
            "lean": 0.9 * np.sin(TAU * t),
            "ripple": 0.9 * np.sin(2 * a + 0.8) * (0.4 + 0.6 * max(0.0, -np.cos(a))),
        }

    shapes = {"squash": squash, "stretch": stretch, "lean": lean, "ripple": ripple}
    kit.key_shapes(thing, shapes, range(49), weights)


def jellyfish() -> None:
    """A jellyfish: six morph targets, one for each time of a pulse that runs down bell and tentacles."""
    bell = lathe(
        [
            (0.0, 0.12),
            (0.24, 0.07),
            (0.37, -0.02),
            (0.455, -0.015),
            (0.46, 0.02),
            (0.445, 0.13),
            (0.40, 0.25),
            (0.31, 0.36),
            (0.18, 0.435),
            (0.08, 0.46),
            (0, 0.465),
        ],
        32,
    )
    parts = [bell]
    z = np.linspace(0.03, -0.72, 13)
    for i in range(8):
        a = TAU * (i + 0.5) / 8
        reach = 0.34 + 0.02 * (i % 2)
        sway = 0.03 * np.sin(7 * (0.03 - z) + i)
        path = np.stack(
            [(reach + sway) * np.cos(a), (reach + sway) * np.sin(a), z * (0.75 if i % 2 else 1.0)], axis=1
        )
        parts.append(tube(path, np.linspace(0.034, 0.012, 13), 6))
    for i in range(3):
        a = TAU * i / 3
        path = np.stack(
            [
                (0.11 + 0.03 * np.sin(9 * z)) * np.cos(a),
                (0.11 + 0.03 * np.cos(9 * z)) * np.sin(a),
                0.1 + 0.75 * z,
            ],
            axis=1,
        )
        parts.append(tube(path, np.linspace(0.07, 0.02, 13), 8))
    vertices, faces, count = [], [], 0
    for v, f in parts:
        vertices.append(v)
        faces += [tuple(i + count for i in face) for face in f]
        count += len(v)
    rest = np.vstack(vertices)

    def colour(p: Array) -> Array:
        r, z, a = np.hypot(p[:, 0], p[:, 1]), p[:, 2], np.arctan2(p[:, 1], p[:, 0])
        skin = rgb("#b45fb0") + 0.0 * p
        skin = paint(skin, "#e08bb4", smoothstep(0.10, 0.42, z))
        rays = smoothstep(0.05, 0.3, np.cos(16 * a)) * smoothstep(0.05, 0.16, r) * smoothstep(0.36, 0.1, z)
        skin = paint(skin, "#8a47a3", 0.75 * rays * (z > -0.012))
        dots = smoothstep(0.62, 0.75, np.cos(8 * a) * np.cos(26 * (z - 0.29))) * (z > 0.22) * (z < 0.36)
        skin = paint(skin, "#f6dcc0", dots)
        skin = paint(skin, "#f0c6cf", smoothstep(0.42, 0.435, r) * smoothstep(0.035, 0.02, z))
        under = (z < 0.05) & (r < 0.42)
        skin = paint(skin, "#6f4ba8", under * smoothstep(0.05, -0.65, z))
        return paint(skin, "#f3b6a0", under * (r < 0.19) * smoothstep(-0.5, 0.1, z))

    thing = kit.painted("jellyfish", (rest, faces), colour, 512)
    steps = 6

    def squeeze(phase: float) -> Array:
        r, a, z = np.hypot(rest[:, 0], rest[:, 1]), np.arctan2(rest[:, 1], rest[:, 0]), rest[:, 2]
        depth = np.clip(0.46 - z, 0, None)
        beat = np.cos(TAU * phase - 3.2 * depth)
        wide = 1 + (0.05 + 0.22 * np.minimum(depth, 0.6)) * beat * smoothstep(0.0, 0.3, depth)
        drift = 0.09 * np.minimum(np.maximum(-z, 0), 0.6) * np.sin(TAU * phase - 5.0 * depth)
        rise = 0.05 * np.sin(TAU * phase) - 0.10 * smoothstep(0.25, 0.45, r) * (z > -0.05) * 0.5 * beat
        return np.stack([r * wide * np.cos(a) + drift, r * wide * np.sin(a) + drift, z + rise], axis=1)

    def weights(t: float) -> dict[str, float]:
        at = (2 * t * steps) % steps
        low = int(at) % steps
        part = at - int(at)
        ease = part
        return {f"pulse{low}": 1 - ease, f"pulse{(low + 1) % steps}": ease}

    shapes = {f"pulse{i}": squeeze(i / steps) for i in range(steps)}
    kit.key_shapes(thing, shapes, range(61), weights)


def flower() -> None:
    """A potted flower that opens and closes: a bone for each petal, the stem bends on three."""
    look = {
        "pot": "#b8623f",
        "rim": "#cb7a52",
        "soil": "#4a3428",
        "stem": "#4f8a45",
        "leaf": "#65a552",
        "petal": "#d9638a",
        "inner": "#ee9ab0",
        "heart": "#e3ac3f",
        "seed": "#a86a2c",
    }
    parts = kit.Parts(look)
    parts.add(lathe([(0, -0.52), (0.17, -0.52), (0.225, -0.28), (0, -0.28)], 28), "pot", "pot")
    parts.add(
        lathe([(0.21, -0.30), (0.255, -0.295), (0.255, -0.225), (0.215, -0.225), (0.21, -0.26)], 28),
        "rim",
        "pot",
    )
    parts.add(lathe([(0.215, -0.255), (0.1, -0.235), (0, -0.23)], 28), "soil", "pot")
    for i, (low, high) in enumerate(((-0.25, -0.05), (-0.05, 0.12), (0.12, 0.29))):
        parts.add(
            tube([(0, 0, low - 0.02), (0.0, 0.0, (low + high) / 2), (0, 0, high + 0.02)], 0.026, 10),
            "stem",
            f"stem{i}",
        )
    for side, level in ((1, -0.13), (-1, -0.05)):
        bone = "leafL" if side > 0 else "leafR"
        parts.add(_petal(0.30, 0.085, (0, 0, level), 90 if side > 0 else -90, 32), "leaf", bone)
    parts.add(moved(sphere(0.095, 20, 12), (0, 0, 0.32), (1, 1, 0.62)), "heart", "stem2")
    for i in range(9):
        a = TAU * i / 9
        parts.add(moved(sphere(0.018, 8, 6), (0.05 * np.cos(a), 0.05 * np.sin(a), 0.375)), "seed", "stem2")
    bones: dict[str, tuple] = {"pot": ((0, 0, -0.5), (0, 0, -0.3), 0, None)}
    for i, (low, high) in enumerate(((-0.25, -0.05), (-0.05, 0.12), (0.12, 0.29))):
        bones[f"stem{i}"] = ((0, 0, low), (0, 0, high), 0, f"stem{i - 1}" if i else "pot")
    bones["leafL"] = ((0, 0, -0.13), (0.2, 0, 0.0), 0, "stem0")
    bones["leafR"] = ((0, 0, -0.05), (-0.2, 0, 0.08), 0, "stem1")
    petals = [(f"petal{i}", 360 * i / 8, 0.36, "petal", 0.0) for i in range(8)]
    petals += [(f"inner{i}", 360 * (i + 0.5) / 6, 0.24, "inner", 0.028) for i in range(6)]
    for name, angle, length, colour, up in petals:
        base = (0.055 * np.sin(np.radians(angle)), -0.055 * np.cos(np.radians(angle)), 0.305 + up)
        parts.add(_petal(length, 0.115 if colour == "petal" else 0.085, base, angle, 26), colour, name)
        tip = (
            base[0] + 0.2 * np.sin(np.radians(angle)),
            base[1] - 0.2 * np.cos(np.radians(angle)),
            base[2] + 0.1,
        )
        bones[name] = (base, tip, 0, "stem2")
    body = parts.build("flower")
    rig = kit.armature("flower_rig", bones)
    kit.bind(body, rig)

    def bloom(t: float) -> kit.Pose:
        closed = 0.5 + 0.5 * np.cos(TAU * t)
        pose: dict = {
            f"stem{i}": {"turn": (7 * np.sin(TAU * t - 0.5 * i), 9 * np.sin(TAU * t - 0.5 * i + 0.7), 0)}
            for i in range(3)
        }
        for name, angle, _, colour, _ in petals:
            fold = (58 if colour == "petal" else 50) * closed - 14 * (1 - closed)
            a = np.radians(angle)
            # A petal folds up about the horizontal axis across it.
            pose[name] = {"about": (-np.cos(a), -np.sin(a), 0.0), "angle": fold}
        pose["leafL"] = {"turn": (0, 12 * np.sin(TAU * t), 0)}
        pose["leafR"] = {"turn": (0, 12 * np.sin(TAU * t + 0.6), 0)}
        return pose

    kit.animate(rig, "Bloom", range(61), bloom)


def _petal(length: float, width: float, base: tuple, angle_deg: float, rise_deg: float) -> kit.Mesh:
    """A curved leaf with thickness that grows from `base` towards azimuth `angle_deg` (0 is -Y)."""
    along, across = np.linspace(0, 1, 9), np.linspace(-1, 1, 5)
    outline = width * np.sqrt(np.clip(np.sin(np.pi * (0.06 + 0.94 * along) ** 0.8), 0, 1))
    outline[-1] = 0.004
    top: list[tuple[float, float, float]] = []
    bottom: list[tuple[float, float, float]] = []
    for t, half in zip(along, outline):
        for s in across:
            curl = 0.06 * np.sin(np.pi * t) - 0.05 * t * t + 0.035 * s * s * half / width
            for layer, lift in ((top, 0.007), (bottom, -0.007)):
                layer.append((s * half, -length * t, curl + lift * (1 - 0.8 * t)))
    n, m = len(along), len(across)
    faces: list[tuple[int, ...]] = []
    for i in range(n - 1):
        for j in range(m - 1):
            a, b, c, d = i * m + j, i * m + j + 1, (i + 1) * m + j + 1, (i + 1) * m + j
            faces += [(d, c, b, a), (n * m + a, n * m + b, n * m + c, n * m + d)]
    edge = [i * m for i in range(n)] + [(n - 1) * m + j for j in range(1, m)]
    edge += [i * m + m - 1 for i in range(n - 2, -1, -1)] + list(range(m - 2, 0, -1))
    for a, b in zip(edge, [*edge[1:], edge[0]]):
        faces.append((a, b, n * m + b, n * m + a))
    mesh = moved((np.array(top + bottom), faces), (0, 0, 0), 1.0, (-rise_deg, 0, 0))
    return moved(mesh, base, 1.0, (0, 0, angle_deg))
