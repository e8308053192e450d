# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside Blender: imports bpy, which is GPL.
"""The demo's things of rigid parts, and the three that curation must turn away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import bpy
import numpy as np

from orbit4d.render.blender.demo import kit
from orbit4d.render.blender.demo.creatures import TAU
from orbit4d.render.blender.demo.forms import (
    Array,
    lathe,
    moved,
    paint,
    rgb,
    smoothstep,
    sphere,
    tube,
)


def windmill() -> None:
    """A windmill: rigid parts in a hierarchy; the sails turn while the cap looks for the wind."""
    look = {
        "wall": "#d8cdb8",
        "stone": "#8b8a86",
        "wood": "#8a5a3a",
        "roof": "#a8493c",
        "sail": "#e4ddca",
        "glass": "#4a7f98",
        "grass": "#6f9d54",
    }
    tower = kit.Parts(look)
    tower.add(
        lathe([(0, -0.05), (0.56, -0.05), (0.60, 0.0), (0.52, 0.045), (0.3, 0.07), (0, 0.07)], 32),
        "grass",
        "",
        True,
    )
    tower.add(lathe([(0.37, 0.0), (0.36, 0.16), (0.34, 0.17)], 10), "stone", smooth=False)
    tower.add(lathe([(0.34, 0.12), (0.235, 0.80), (0, 0.80)], 10), "wall", smooth=False)
    tower.add(lathe([(0.19, 0.44), (0.41, 0.44), (0.41, 0.475), (0.19, 0.475)], 20), "wood", smooth=False)
    tower.add(kit.box((0.15, 0.06, 0.25), (0, -0.315, 0.19), 0.02), "wood", smooth=False)
    for angle, height in ((0, 0.60), (90, 0.34), (180, 0.60), (270, 0.34)):
        reach = 0.335 - 0.145 * (height - 0.12) / 0.68
        place = (reach * np.sin(np.radians(angle)), -reach * np.cos(np.radians(angle)), height)
        tower.add(
            moved(kit.box((0.1, 0.05, 0.12), (0, 0, 0), 0.012), place, 1.0, (0, 0, angle)),
            "glass",
            smooth=False,
        )
    for i in range(16):
        a = TAU * i / 16
        tower.add(
            tube(
                [(0.385 * np.cos(a), 0.385 * np.sin(a), 0.47), (0.385 * np.cos(a), 0.385 * np.sin(a), 0.545)],
                0.011,
                5,
            ),
            "wood",
        )
    tower.build("tower")

    cap = kit.Parts(look)
    cap.add(
        lathe([(0, 0.80), (0.275, 0.80), (0.275, 0.84), (0.20, 0.97), (0.09, 1.06), (0, 1.08)], 20), "roof"
    )
    cap.add(
        moved(
            lathe([(0, -0.30), (0.035, -0.30), (0.035, 0.1), (0, 0.1)], 12), (0, -0.1, 0.91), 1.0, (-90, 0, 0)
        ),
        "wood",
    )
    cap.add(tube([(0, 0.18, 0.9), (0, 0.46, 0.88)], 0.016, 6), "wood")
    cap.add(kit.box((0.012, 0.13, 0.17), (0, 0.47, 0.89), 0.005), "roof", smooth=False)
    cap_object = cap.build("cap", origin=(0, 0, 0.80))

    sails = kit.Parts(look)
    hub = (0.0, -0.40, 0.91)
    sails.add(moved(sphere(0.058, 16, 10), hub), "wood")
    for i in range(4):
        turn = (0, 90 * i + 20, 0)
        arm = moved(kit.box((0.03, 0.025, 0.60), (0, 0, 0.31), 0.006), (0, 0, 0), 1.0, turn)
        sails.add(moved(arm, hub), "wood", smooth=False)
        cloth = moved(kit.box((0.15, 0.012, 0.44), (0.085, 0.012, 0.375), 0.004), (0, 0, 0), 1.0, (0, 0, -12))
        sails.add(moved(moved(cloth, (0, 0, 0), 1.0, turn), hub), "sail", smooth=False)
        for k in range(4):
            bar = moved(
                kit.box((0.17, 0.018, 0.014), (0.085, 0.0, 0.18 + 0.13 * k), 0.004),
                (0, 0, 0),
                1.0,
                (0, 0, -12),
            )
            sails.add(moved(moved(bar, (0, 0, 0), 1.0, turn), hub), "wood", smooth=False)
    sails_object = sails.build("sails", origin=hub)
    sails_object.parent = cap_object
    sails_object.location = (0, hub[1], hub[2] - 0.80)
    frames = range(73)
    kit.key_object(cap_object, frames, turn_deg=lambda t: (0, 0, 32 * np.sin(TAU * t)))
    kit.key_object(sails_object, frames, turn_deg=lambda t: (0, 360 * t, 0))


def orrery() -> None:
    """A clockwork of planets: four turning arms, each with its own speed, and a moon on the third."""
    look = {
        "brass": "#b98b3e",
        "wood": "#6f4630",
        "sun": "#efb23a",
        "red": "#c25a3c",
        "blue": "#3f7fb5",
        "green": "#6fa35a",
        "violet": "#8b6bb0",
        "moon": "#c9c4ba",
        "ring": "#d9b98a",
    }
    stand = kit.Parts(look)
    stand.add(
        lathe(
            [
                (0, -0.52),
                (0.34, -0.52),
                (0.36, -0.49),
                (0.34, -0.45),
                (0.20, -0.42),
                (0.07, -0.36),
                (0.05, -0.25),
                (0.07, -0.22),
                (0.04, -0.18),
                (0.03, 0.0),
                (0, 0),
            ],
            32,
        ),
        "wood",
    )
    stand.add(lathe([(0.33, -0.455), (0.345, -0.44), (0.32, -0.432), (0.30, -0.445)], 32), "brass")
    stand.add(moved(sphere(0.19, 28, 18), (0, 0, 0.10)), "sun")
    for i in range(12):
        a = TAU * i / 12
        ray = lathe([(0, 0.19), (0.03, 0.19), (0.0, 0.25)], 8)
        stand.add(
            moved(moved(ray, (0, 0, 0), 1.0, (0, 90, 0)), (0, 0, 0.10), 1.0, (0, 0, np.degrees(a))),
            "brass",
            smooth=False,
        )
    stand.build("stand")
    frames = range(97)
    arms = (
        ("mercury", 0.28, 0.055, "red", -0.07, 0.14, 3, 20),
        ("venus", 0.38, 0.08, "violet", -0.13, 0.0, 2, 140),
        ("earth", 0.50, 0.10, "blue", -0.19, 0.24, 1, 250),
        ("saturn", 0.60, 0.11, "green", -0.25, -0.02, -1, 80),
    )
    for name, reach, size, colour, low, high, turns, start in arms:
        arm = kit.Parts(look)
        arm.add(
            lathe([(0.055, low - 0.018), (0.07, low - 0.018), (0.07, low + 0.018), (0.055, low + 0.018)], 20),
            "brass",
            smooth=False,
        )
        arm.add(
            moved(kit.box((reach - 0.05, 0.022, 0.016), ((reach + 0.05) / 2, 0, low), 0.004), (0, 0, 0)),
            "brass",
            smooth=False,
        )
        arm.add(moved(lathe([(0, low), (0.012, low), (0.012, high), (0, high)], 8), (reach, 0, 0)), "brass")
        arm.add(moved(sphere(size, 22, 14), (reach, 0, high)), colour)
        if name == "saturn":
            ring = lathe([(0.13, -0.008), (0.20, -0.008), (0.20, 0.008), (0.13, 0.008), (0.13, -0.008)], 36)
            arm.add(moved(ring, (reach, 0, high), 1.0, (18, 12, 0)), "ring", smooth=False)
        thing = arm.build(name)
        kit.key_object(thing, frames, turn_deg=_spinning(start, turns))
        if name == "earth":
            moon = kit.Parts(look)
            moon.add(moved(sphere(0.032, 14, 10), (0.155, 0, 0.03)), "moon")
            moon.add(
                tube([(0, 0.0001, 0.145), (0.08, 0, 0.15), (0.15, 0, 0.10), (0.155, 0, 0.05)], 0.007, 6),
                "brass",
            )
            moon_object = moon.build("moon")
            moon_object.parent = thing
            moon_object.location = (reach, 0, high)
            kit.key_object(moon_object, frames, turn_deg=lambda t: (0, 0, 360 * 4 * t))


def _spinning(start_deg: float, turns: int) -> Callable[[float], Sequence[float]]:
    """Whole turns about z over the action."""
    return lambda t: (0, 0, start_deg + 360 * turns * t)


def ball() -> None:
    """A beach ball that bounces on a drum: it squashes on impact and rolls in the air; the drum gives way."""
    mesh = sphere(0.27, 36, 22)
    wedges = ("#d9534a", "#ece4d2", "#3f86bd", "#ece4d2", "#e3ac3f", "#ece4d2")

    def colour(p: Array) -> Array:
        a = (np.arctan2(p[:, 1], p[:, 0]) / TAU * 6) % 6
        skin = np.stack([rgb(w) for w in wedges])[a.astype(int) % 6]
        near = np.abs(a - np.round(a)) * np.hypot(p[:, 0], p[:, 1])
        skin = paint(skin, "#f7f2e6", smoothstep(0.012, 0.004, near))
        return paint(skin, "#e08a3c", smoothstep(0.248, 0.253, np.abs(p[:, 2])))

    toy = kit.painted("ball", mesh, colour, 256)
    pivot = bpy.data.objects.new("bounce", None)
    bpy.context.scene.collection.objects.link(pivot)
    toy.parent = pivot
    drum = kit.Parts({"rim": "#c75b45", "body": "#3c5a73", "skin": "#c2b08c", "peg": "#e3ac3f"})
    drum.add(lathe([(0, -0.30), (0.40, -0.30), (0.43, -0.28), (0.43, -0.02), (0.40, 0.0)], 36), "body")
    drum.add(lathe([(0.445, -0.06), (0.455, -0.03), (0.44, 0.005), (0.40, 0.005)], 36), "rim")
    drum.add(lathe([(0.455, -0.30), (0.455, -0.25), (0.43, -0.24)], 36), "rim")
    for i in range(10):
        a = TAU * i / 10
        drum.add(
            tube(
                [
                    (0.437 * np.cos(a), 0.437 * np.sin(a), -0.07),
                    (0.437 * np.cos(a + 0.31), 0.437 * np.sin(a + 0.31), -0.25),
                ],
                0.009,
                6,
            ),
            "peg",
        )
    drum.build("drum")
    skin = kit.Parts({"rim": "#c75b45", "body": "#3c5a73", "skin": "#c2b08c", "peg": "#e3ac3f"})
    skin.add(lathe([(0.41, 0.0), (0.30, 0.012), (0.15, 0.012), (0.0, 0.012)], 36), "skin")
    skin_object = skin.build("drum_skin")
    frames = range(49)

    def height(t: float) -> float:
        u = (2 * t) % 1.0
        return 4 * u * (1 - u)

    def press(t: float) -> float:
        return max(0.0, 1 - height(t) / 0.16)

    def place(t: float) -> tuple[float, float, float]:
        return (0.0, 0.0, 0.265 + 0.62 * height(t) - 0.125 * press(t))

    def scale(t: float) -> tuple[float, float, float]:
        up = float(0.10 * smoothstep(0.1, 0.5, height(t)) * smoothstep(0.98, 0.6, height(t)))
        wide = 1 + 0.26 * press(t) - 0.5 * up
        return (wide, wide, 1 - 0.34 * press(t) + up)

    kit.key_object(pivot, frames, place=place, scale=scale)
    kit.key_object(toy, frames, turn_deg=lambda t: (22, 360 * t, 40))
    kit.key_object(skin_object, frames, scale=lambda t: (1, 1, 1 - 7.0 * press(t)))


def vase() -> None:
    """Rejected, static: a vase, and no animation at all."""

    def colour(p: Array) -> Array:
        a, z = np.arctan2(p[:, 1], p[:, 0]), p[:, 2]
        skin = rgb("#c9c0ad") + 0.0 * p
        key = smoothstep(0.3, 0.4, np.abs(((a / TAU * 14) % 1.0) - 0.5))
        for low, high in ((-0.18, -0.08), (0.22, 0.27)):
            skin = paint(skin, "#3f6f8f", ((z > low) & (z < high)) * key)
        for height in (-0.21, -0.05, 0.20, 0.29):
            skin = paint(skin, "#3f6f8f", smoothstep(0.012, 0.006, np.abs(z - height)))
        return paint(skin, "#9f5a43", smoothstep(-0.38, -0.40, z))

    profile = [
        (0, -0.5),
        (0.17, -0.5),
        (0.19, -0.47),
        (0.25, -0.32),
        (0.335, -0.12),
        (0.335, 0.0),
        (0.27, 0.14),
        (0.15, 0.25),
        (0.11, 0.32),
        (0.125, 0.40),
        (0.19, 0.47),
        (0.19, 0.49),
        (0.16, 0.48),
        (0.09, 0.38),
        (0, 0.3),
    ]
    kit.painted("vase", lathe(profile, 36), colour, 256)


def lantern() -> None:
    """Rejected, near-still: a hanging lantern that sways by 0.4 degrees."""
    look = {"iron": "#3b3f45", "glass": "#e2b45a", "hook": "#6b6f76"}
    parts = kit.Parts(look)
    parts.add(
        lathe([(0, -0.42), (0.24, -0.42), (0.26, -0.38), (0.2, -0.34), (0, -0.34)], 6), "iron", smooth=False
    )
    parts.add(lathe([(0.17, -0.34), (0.20, -0.1), (0.20, 0.06), (0.17, 0.12)], 6), "glass", smooth=False)
    parts.add(
        lathe([(0, 0.12), (0.27, 0.12), (0.22, 0.2), (0.08, 0.32), (0.05, 0.38), (0, 0.38)], 6),
        "iron",
        smooth=False,
    )
    for i in range(6):
        a = TAU * i / 6
        parts.add(
            tube(
                [
                    (0.18 * np.cos(a), 0.18 * np.sin(a), -0.34),
                    (0.21 * np.cos(a), 0.21 * np.sin(a), -0.1),
                    (0.21 * np.cos(a), 0.21 * np.sin(a), 0.06),
                    (0.18 * np.cos(a), 0.18 * np.sin(a), 0.12),
                ],
                0.014,
                6,
            ),
            "iron",
        )
    ring = [
        (0.0001 * np.cos(t), 0.075 * np.cos(t), 0.45 + 0.075 * np.sin(t)) for t in np.linspace(0, TAU, 17)
    ]
    parts.add(tube(ring, 0.014, 6), "hook")
    thing = parts.build("lantern", origin=(0, 0, 0.5))
    kit.key_object(thing, range(97), turn_deg=lambda t: (0, 0.4 * np.sin(TAU * t), 0))


def rocket() -> None:
    """Rejected, flies away: six of its own lengths in two seconds."""
    look = {"hull": "#d9d2c3", "red": "#c4493d", "glass": "#4a8db0", "flame": "#e9a23b", "dark": "#4a4f58"}
    parts = kit.Parts(look)
    parts.add(lathe([(0, -0.34), (0.13, -0.34), (0.185, -0.1), (0.18, 0.12), (0.13, 0.28)], 24), "hull")
    parts.add(lathe([(0.13, 0.28), (0.07, 0.42), (0, 0.5)], 24), "red")
    parts.add(lathe([(0, -0.40), (0.12, -0.40), (0.09, -0.33), (0, -0.33)], 20), "dark", smooth=False)
    parts.add(lathe([(0, -0.62), (0.05, -0.54), (0.085, -0.45), (0.07, -0.40), (0, -0.40)], 16), "flame")
    parts.add(moved(sphere(0.075, 18, 12), (0, -0.165, 0.1), (1, 0.5, 1)), "glass")
    for i in range(3):
        fin = kit.box((0.03, 0.2, 0.24), (0, 0.22, -0.33), 0.012)
        parts.add(moved(fin, (0, 0, 0), 1.0, (0, 0, 120 * i)), "red", smooth=False)
    thing = parts.build("rocket")
    kit.key_object(thing, range(49), place=lambda t: (0.6 * t, -1.0 * t, 7.0 * t * t))
