"""Every message is what it was after a trip over the wire; what is not a message is named in one sentence."""

from __future__ import annotations

import math
import typing
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit4d.datasets.core.errors import WorkError
from orbit4d.render.dataset.asset_job import clips_of_action
from orbit4d.render.planning.settings import preset
from orbit4d.render.planning.views import plan_action
from orbit4d.render.protocol import messages, wire
from orbit4d.render.protocol.messages import (
    Done,
    Event,
    Failed,
    ProtocolError,
    Ready,
    Refused,
    RejectedAction,
    RenderedAction,
    RenderResult,
    Request,
    answer_of,
    answer_to_json,
    from_json,
    to_json,
)

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return JSON
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{each.name: strategy(hints[each.name]) for each in fields(hint)})
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(strategy(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(strategy, arguments))
    if origin is dict:
        return st.dictionaries(TEXT, strategy(arguments[1]), max_size=3)
    if type(None) in arguments:
        return st.none() | strategy(arguments[0])
    plain = {int: st.integers(), float: st.floats(allow_nan=False, allow_infinity=False), str: TEXT}
    return plain[hint]


MESSAGES = [Request, Ready, Event, Done, Refused, Failed, RejectedAction, RenderedAction, RenderResult]


def over_the_wire(values: dict[str, Any]) -> dict[str, Any]:
    line = wire.encode(values)
    assert line.endswith(b"\n") and b"\n" not in line[:-1]
    found = wire.decode(line)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_message_comes_back_as_it_was(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(strategy(kind))
    assert from_json(kind, over_the_wire(to_json(message))) == message
    if hasattr(kind, "type"):
        assert answer_of(over_the_wire(answer_to_json(message))) == message


def test_every_message_is_tried_here() -> None:
    kinds = {kind for kind in vars(messages).values() if hasattr(kind, "__dataclass_fields__")}
    assert kinds == set(MESSAGES)


ACTION = RenderedAction(
    0,
    "Go",
    (0.0, 1.0),
    2.0,
    (0.0, 0.0, 1.0),
    ("a.webp",),
    {},
    {"dynamic_orbit/0": {"coverage": 0.5}},
    1.5,
    "ab",
)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale": "2"}, "RenderedAction.scale is '2', not float"),
        ({"scale": True}, "RenderedAction.scale is True, not float"),
        ({"scale": None}, "RenderedAction.scale is None, not float"),
        ({"index": 1.0}, "RenderedAction.index is 1.0, not int"),
        ({"window": [0.0]}, "RenderedAction.window holds 1 values, not 2"),
        ({"files": "a.webp"}, "RenderedAction.files is 'a.webp', no list"),
        ({"files": ["a.webp", 3]}, r"RenderedAction.files\[1\] is 3, not str"),
        (
            {"measures": {"dynamic_orbit/0": {"coverage": None}}},
            r"\['coverage'\] is None, not float",
        ),
        ({"measures": []}, r"RenderedAction.measures is \[\], no object"),
        ({"angle": 1}, "RenderedAction has no field angle"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        from_json(RenderedAction, {**to_json(ACTION), **change})


def test_a_missing_field_is_named_and_a_default_is_not_missed() -> None:
    values = to_json(ACTION)
    del values["plan_sha256"]
    with pytest.raises(ProtocolError, match=r"RenderedAction\.plan_sha256 is missing"):
        from_json(RenderedAction, values)
    assert from_json(Request, {"task": "trial"}) == Request("trial", {})
    for line in ({"type": "gossip"}, {}, {"type": ["ready"]}):
        with pytest.raises(ProtocolError, match="no message is of type"):
            answer_of(line)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_does_not_have_is_refused_where_it_is_said(value: float) -> None:
    with pytest.raises(ProtocolError, match=r"RenderedAction\.scale is"):
        to_json(replace(ACTION, scale=value))
    with pytest.raises(ProtocolError, match="coverage"):
        to_json(replace(ACTION, measures={"dynamic_orbit/0": {"coverage": value}}))


def test_a_plan_that_is_not_the_childs_is_refused() -> None:
    """Cameras are not sent: both sides plan, and the clips are made only where both came to the same."""
    chosen = preset("draft", frames=3)
    plans = [plan_action(chosen, "uid", (0.0, 1.0)), plan_action(chosen, "uid", (0.0, 1.0))]
    assert plans[0].sha256 == plans[1].sha256
    others = (
        plan_action(replace(chosen, radius=chosen.radius + 1e-9), "uid", (0.0, 1.0)),
        plan_action(chosen, "uid", (0.0, 1.0 + 1e-12)),
        plan_action(replace(chosen, frames=4), "uid", (0.0, 1.0)),
        plan_action(replace(chosen, rigs=("dynamic_orbit",)), "uid", (0.0, 1.0)),
    )
    assert len({plan.sha256 for plan in (plans[0], *others)}) == 5
    payload = {"uid": "uid", "scratch": "", "sha256": "", "provenance": {}}
    action = to_json(replace(ACTION, plan_sha256=others[0].sha256))
    with pytest.raises(WorkError, match="uid: the cameras and times that Blender rendered are not those"):
        clips_of_action(payload, chosen, action, {})
