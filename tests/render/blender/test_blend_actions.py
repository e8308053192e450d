"""Actions of a .blend: each once, under its own name, whatever track, stash or fake user holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

WRITE = """
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.scene.render.fps = 30
def mesh(name, x):
    obj = bpy.data.objects.new(name, bpy.data.meshes.new(name))
    obj.data.from_pydata([(x, 0, 0), (x + 1, 0, 0), (x, 1, 0)], [], [(0, 1, 2)])
    bpy.context.scene.collection.objects.link(obj)
    obj.animation_data_create()
    return obj
def action(name, keys, *objects, path='location', index=2):
    block = bpy.data.actions.new(name)
    strip = block.layers.new('l').strips.new(type='KEYFRAME')
    for obj in objects:
        slot = block.slots.new('OBJECT', obj.name)
        curve = strip.channelbag(slot, ensure=True).fcurves.new(path, index=index)
        curve.keyframe_points.add(len(keys))
        for point, co in zip(curve.keyframe_points, keys):
            point.co, point.interpolation = co, 'LINEAR'
        curve.update()
    block.use_fake_user = True
    return block
def track(obj, name, *strips, mute=False):
    made = obj.animation_data.nla_tracks.new()
    made.name, made.mute = name, mute
    for block, start in strips:
        strip = made.strips.new(block.name, start, block)
        strip.action_slot = block.slots['OB' + obj.name]
"""

FILES = {
    # Nothing plays anything.
    "unused": """
fox, owl = mesh('fox', 0), mesh('owl', 3)
action('Pounce', [(0, 0), (15, 1)], fox)
action('Blink', [(0, 0), (6, 2)], owl)
action('Both', [(0, 0), (30, 3)], fox, owl)
""",
    # One name of track for all; one action in two places; a track of three strips; a stash that is muted.
    "tracks": """
fox, owl = mesh('fox', 0), mesh('owl', 3)
pounce, blink = action('Pounce', [(0, 0), (15, 1)], fox), action('Blink', [(0, 0), (6, 2)], owl)
land, both = action('Land', [(3, 1), (21, 0)], fox), action('Both', [(0, 0), (30, 3)], fox, owl)
track(fox, 'Track', (pounce, 1), (land, 40), (pounce, 90))
track(owl, 'Track', (blink, 0))
track(fox, '[Action Stash]', (both, 0), mute=True)
track(owl, '[Action Stash].001', (both, 0), mute=True)
""",
    # What is assigned plays as the scene; what is left over does not play along.
    "assigned": """
fox, owl = mesh('fox', 0), mesh('owl', 3)
pounce, blink = action('Pounce', [(0, 0), (15, 1)], fox), action('Blink', [(0, 0), (6, 2)], owl)
fox.animation_data.action = pounce
fox.animation_data.action_slot = pounce.slots[0]
track(owl, 'Pounce', (blink, 0))
""",
    # A slot whose name says nothing: the bones decide. One for two equal objects says so.
    "nameless": """
fox, owl = mesh('fox', 0), mesh('owl', 3)
rig = bpy.data.objects.new('rig', bpy.data.armatures.new('rig'))
bpy.context.scene.collection.objects.link(rig)
bpy.context.view_layer.objects.active = rig
bpy.ops.object.mode_set(mode='EDIT')
bone = rig.data.edit_bones.new('tail')
bone.tail = (0, 0, 1)
bpy.ops.object.mode_set(mode='OBJECT')
fox.parent, fox.parent_type, fox.parent_bone = rig, 'BONE', 'tail'
wag = action('Wag', [(0, 0), (30, 2)], rig, path='pose.bones["tail"].location')
wag.slots[0].name_display = 'Legacy Slot'
lost = action('Lost', [(0, 0), (30, 2)], fox)
lost.slots[0].name_display = 'Legacy Slot'
""",
}


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, in_blender: Callable[..., Any], read_actions: Callable[..., Any]
) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("blends")
    paths = [folder / f"{name}.blend" for name in FILES]
    for path in paths:
        # A .blend keeps what its frame showed.
        save = f"\nbpy.context.scene.frame_set(0)\nbpy.ops.wm.save_as_mainfile(filepath={str(path)!r})\n"
        in_blender(WRITE + FILES[path.stem] + save)
    return dict(zip(FILES, read_actions(paths, (0.0, 0.2, 0.5, 1.0))))


def heights(action: dict[str, Any], name: str) -> list[float]:
    return [round(moment[name]["place"][2], 3) for moment in action["moments"]]


def ranges(asset: dict[str, Any]) -> dict[str, list[float]]:
    return {action["name"]: [round(t, 3) for t in action["range"]] for action in asset["actions"]}


def test_actions_that_nothing_plays_are_bound_by_the_names_of_their_slots(found: dict[str, Any]) -> None:
    asset = found["unused"]
    assert ranges(asset) == {"Blink": [0, 0.2], "Both": [0, 1], "Pounce": [0, 0.5]} and not asset["flags"]
    blink, both, pounce = asset["actions"]
    assert heights(blink, "owl") == [0, 2, 2, 2] and heights(blink, "fox") == [0, 0, 0, 0]
    assert heights(both, "owl") == heights(both, "fox") == [0, 0.6, 1.5, 3]
    assert heights(pounce, "fox") == [0, 0.4, 1, 1] and heights(pounce, "owl") == [0, 0, 0, 0]


def test_an_action_counts_once_whatever_tracks_hold_it(found: dict[str, Any]) -> None:
    asset = found["tracks"]
    expected = {"Blink": [0, 0.2], "Both": [0, 1], "Land": [0.1, 0.7], "Pounce": [0, 0.5]}
    assert ranges(asset) == expected and len(asset["actions"]) == 4
    blink, both, land, pounce = asset["actions"]
    assert heights(land, "fox") == [1, pytest.approx(0.833, abs=2e-3), pytest.approx(0.333, abs=2e-3), 0]
    assert heights(pounce, "fox") == [0, 0.4, 1, 1] and heights(blink, "fox") == [0, 0, 0, 0]
    assert heights(both, "owl") == heights(both, "fox") == [0, 0.6, 1.5, 3]


def test_what_is_assigned_comes_first_and_plays_alone(found: dict[str, Any]) -> None:
    asset = found["assigned"]
    assert list(ranges(asset)) == ["Pounce", "Blink"]
    pounce, blink = asset["actions"]
    assert heights(pounce, "owl") == [0, 0, 0, 0] and heights(blink, "owl") == [0, 2, 2, 2]


def test_a_nameless_slot_goes_where_it_fits_and_nowhere_by_guess(found: dict[str, Any]) -> None:
    asset = found["nameless"]
    assert list(ranges(asset)) == ["Wag"] and asset["flags"] == ["unbound_action:Lost"]
    moved = [moment["fox"]["place"] for moment in asset["actions"][0]["moments"]]
    assert sum(abs(a - b) for a, b in zip(moved[0], moved[-1])) == pytest.approx(2.0, abs=1e-3)
