"""Settings survive their file, refuse what they do not know, and the presets say what was published."""

from __future__ import annotations

import pytest

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config import checks as config_checks
from orbit4d.model.config.presets import PRESETS, preset
from orbit4d.model.config.settings import check_same, flatten, from_dict, override, to_dict


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_settings_come_back_from_json(name):
    assert to_dict(from_dict(to_dict(preset(name)))) == to_dict(preset(name))


def test_published_hyper_parameters():
    for name in ("videomv-text", "videomv-image", "videomv-static3d"):
        config = preset(name)
        assert [(stage.name, stage.steps) for stage in config.stages] == [("dynamic", 6000)]
        assert (config.optim.lr, config.optim.schedule, config.optim.effective_batch) == (
            3e-5,
            "constant",
            128,
        )
        assert (config.sample.steps, config.sample.w1, config.sample.w2) == (50, 7.0, 0.5)
        assert (config.data.frames, config.data.resolution, config.data.fps) == (24, 256, 8.0)
        assert dict(config.model.unet) == {}, "the published network is the default of OrbitUNet"


def test_each_base_keeps_its_habits():
    text, image = preset("videomv-text"), preset("videomv-image")
    assert (text.data.background, image.data.background) == ("grey128", "white")
    assert text.data.caption_suffix == ", 3d asset"
    assert text.data.captions and not image.data.captions and not preset("videomv-static3d").data.captions
    assert (text.loss.drop_caption, image.loss.drop_caption) == (0.1, 0.0)
    assert (text.loss.offset_noise, image.loss.offset_noise) == (0.0, 0.1)
    assert (text.model.schedule, image.model.schedule) == ("text", "image")
    assert (text.model.prediction, image.model.prediction) == ("", ""), "each base predicts what it predicted"


def test_override_reaches_every_level_and_shares_steps():
    config = override(
        preset("tiny"), ["optim.lr=1e-4", 'data.augment=["roll"]', "steps=10", "data.where=a > 1"]
    )
    assert config.optim.lr == 1e-4
    assert config.data.augment == ("roll",)
    assert config.data.where == "a > 1"
    assert config.total_steps == 10
    assert all(stage.steps >= 1 for stage in config.stages)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("optim.lr", "key=value"),
        ("optim.speed=3", "no such setting"),
        ("nonsense=3", "no such setting"),
        ("optim.lr=fast", "expected a float"),
        ("optim.batch=1.5", "expected a int"),
        ("data.resolution=true", "expected a int"),
        ("steps=1", "at least 2"),
    ],
)
def test_wrong_assignment_is_one_line_that_names_it(assignment, says):
    with pytest.raises(InputError, match=says) as caught:
        override(preset("tiny"), [assignment])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("optim.schedule=linear", "optim.schedule=linear: give constant or cosine"),
        ("optim.precision=fp8", "give no, bf16 or fp16"),
        ("optim.optimizer=sgd", "give adamw, muon or adamw8bit"),
        ("model.variant=video", "give text, image or static3d"),
        ("model.schedule=linear", "give text or image"),
        ("model.prediction=noise", "give epsilon, v_prediction, sample or nothing"),
        ("data.latents=disk", "give auto, cache, fly or memory"),
        ("sample.spacing=even", "give leading or trailing"),
        (
            'data.augment=["roll","spin"]',
            "no such word as spin; known are roll, reverse, mirror, arc and channels",
        ),
        ('stages=[{"name":"foo","steps":3}]', "stages.name=foo: give static, dynamic, single or views"),
        ('stages=[{"name":"static","steps":0}]', "stages.steps=0: give a number, 1 or more"),
        ('stages=[{"name":"static","steps":"3"}]', 'stages.steps="3": give a number'),
        ('stages=[{"name":"static"}]', "stages.steps is not given"),
        ("stages=[]", "at least one stage"),
        ("seed=-1", "0 or more"),
        ("optim.batch=0", "optim.batch=0: give a number, 1 or more"),
        ("optim.batch=-1", "1 or more"),
        ("optim.lr=-1e-4", "0 or more"),
        ("optim.lr=NaN", "optim.lr=NaN: give a number"),
        ("optim.ema=1", "0 to 1, without 1"),
        ("data.frames=0", "2 or more"),
        ("data.frames=1", "2 or more"),
        ("data.fps=0", "above 0"),
        ("checkpoint_every=0", "1 or more"),
        ("validate_every=0", "1 or more"),
        ("loss.drop_caption=3", "loss.drop_caption=3: give a number, 0 to 1"),
        ("loss.noise_bias=0", "above 0"),
        ("sample.steps=1001", "1 to 1000"),
    ],
)
def test_a_value_that_a_setting_does_not_take_is_one_line_that_names_it(assignment, says):
    with pytest.raises(InputError) as caught:
        override(preset("tiny"), [assignment])
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(assignment.partition("=")[0])


def test_a_text_model_needs_captions():
    with pytest.raises(InputError, match=r"data\.captions=false"):
        override(preset("tiny-text"), ["data.captions=false"])


def test_the_table_of_values_names_settings_that_exist():
    """A renamed setting must not lose its check, and each default must pass."""
    flat = flatten(to_dict(preset("tiny")))
    known = set(flat) | {f"stages.{name}" for name in flat["stages"][0]}
    assert set(config_checks.CHOICES) | set(config_checks.LISTS) | set(config_checks.NUMBERS) <= known
    for key, value in flat.items():
        counted = isinstance(value, int | float) and not isinstance(value, bool)
        unbounded = key in ("schema", "sample.w1", "sample.w2", "sample.w_motion")
        assert not counted or unbounded or key in config_checks.NUMBERS, f"{key} has no bounds"


def test_unknown_setting_in_a_file_is_named():
    values = to_dict(preset("tiny"))
    values["optim"]["momentum"] = 0.9
    with pytest.raises(InputError, match=r"optim\.momentum"):
        from_dict(values)


def test_another_configuration_is_refused_by_its_first_key():
    saved = to_dict(preset("tiny"))
    check_same(saved, override(preset("tiny"), ["data.workers=3"]), "run")
    with pytest.raises(InputError, match=r"optim\.lr"):
        check_same(saved, override(preset("tiny"), ["optim.lr=0.5"]), "run")


def test_a_run_from_before_a_setting_had_its_default():
    saved = to_dict(preset("tiny"))
    del saved["data"]["captions"]
    check_same(saved, preset("tiny"), "run")
    with pytest.raises(InputError, match=r"started with data\.captions=true"):
        check_same(saved, override(preset("tiny"), ["data.captions=false"]), "run")


def test_every_setting_is_described():
    """A reader finds each field's meaning under it."""
    import ast
    import inspect

    from orbit4d.model.config import settings as module

    tree = ast.parse(inspect.getsource(module))
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, following in zip(cls.body, [*cls.body[1:], None]):
            if isinstance(field, ast.AnnAssign):
                described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert described, f"{cls.name}.{field.target.id} has no line under it"
    assert len(flatten(to_dict(preset("tiny")))) > 40
