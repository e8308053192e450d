"""Recorded steps: what they must be, on a stand-in for a device (recorded.py), and on a GPU where one is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.compute import micro_step
from orbit4d.model.compute.graphs import Graphs
from orbit4d.model.run.log import read
from orbit4d.model.training.train import train

spec = importlib.util.spec_from_file_location("orbit4d_recorded", Path(__file__).with_name("recorded.py"))
assert spec is not None and spec.loader is not None
recorded = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recorded)


def of_two(x, y):
    return {"x": torch.tensor(x), "y": torch.tensor(y)}


def test_the_first_of_its_shapes_runs_the_second_is_recorded_the_others_are_replayed():
    ran, recorder = [], recorded.TapeRecorder()

    def work(inputs):
        ran.append(1)
        return {"sum": (inputs["x"] * inputs["y"]).sum()}

    step = Graphs(work, recorder)
    for k in range(5):
        assert step(of_two([1.0, 2.0], [float(k), 1.0]))["sum"] == k + 2
    assert len(ran) == 2 and (recorder.warmed, recorder.recorded, recorder.replayed) == (1, 1, 4)
    step(of_two([1.0], [2.0]))
    assert len(ran) == 3 and step.count == 1, "another shape is another recording"


def test_results_are_the_callers_own_and_inputs_are_left_alone():
    step = Graphs(lambda inputs: {"double": inputs["x"] * 2}, recorded.TapeRecorder())
    given = [{"x": torch.full((3,), float(k))} for k in range(4)]
    results = [step(inputs)["double"] for inputs in given]
    for k, (inputs, result) in enumerate(zip(given, results)):
        assert inputs["x"].tolist() == [k] * 3 and result.tolist() == [2 * k] * 3


def test_gradients_are_added_where_they_are_and_recording_adds_none():
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    weight.grad = torch.zeros(2)

    def work(inputs):
        loss = (weight * inputs["x"]).square().sum()
        loss.backward()
        return {"loss": loss.detach()}

    step, expected = Graphs(work, recorded.TapeRecorder()), torch.zeros(2)
    address = weight.grad.data_ptr()
    for k in range(4):
        x = torch.tensor([1.0 + k, 2.0])
        step({"x": x})
        expected += 2 * weight.detach() * x.square()
        assert torch.equal(weight.grad, expected) and weight.grad.data_ptr() == address


def test_what_reads_a_number_back_is_not_recorded_and_says_so(capsys):
    def work(inputs):
        return {"x": inputs["x"] * (2 if inputs["x"].sum().item() > 0 else 3)}

    step = Graphs(work, recorded.TapeRecorder())
    for value in (1.0, -1.0, 1.0, -1.0):
        assert step({"x": torch.tensor([value])})["x"].item() == value * (2 if value > 0 else 3)
    out = capsys.readouterr().out
    assert out.count("cannot be recorded") == 1 and "not permitted" in out and step.count == 0
    required = Graphs(work, recorded.TapeRecorder(), required=True)
    required({"x": torch.ones(1)})
    with pytest.raises(WorkError, match=r"optim\.graphs=on: the step cannot be recorded"):
        required({"x": torch.ones(1)})


def test_a_recording_that_is_not_the_step_is_refused():
    """Python that counts calls is no function of tensors: the replay would use the first number for ever."""
    calls = []

    def work(inputs):
        calls.append(1)
        return {"x": inputs["x"] * len(calls)}

    step = Graphs(work, recorded.TapeRecorder(), check=work)
    step({"x": torch.ones(1)})
    with pytest.raises(WorkError, match=r"recorded step gives x 2 where a plain one gives 3.*graphs=off"):
        step({"x": torch.ones(1)})


HALF = "optim.precision=bf16", "optim.weights=half", "optim.checkpointing=true", "optim.recompute=attention"


@pytest.mark.parametrize("how", [["optim.precision=no"], HALF])
def test_a_recorded_training_goes_through_the_losses_of_a_plain_one(
    how, tmp_path, synthetic_dataset, micro_config, monkeypatch
):
    """20 steps of two micro-batches, dropout and all, static orbits and first views by turns: as the plain
    loop's to 1e-3 (equal but for the order in which gradients are added up)."""
    sets = ["steps=20", "optim.batch=1", "checkpoint_every=1000", "validate_every=1000", *how]
    train(micro_config(*sets), str(synthetic_dataset), tmp_path / "plain")
    recorders = []

    def recorder_of(device):
        recorders.append(recorded.TapeRecorder())
        return recorders[-1]

    monkeypatch.setattr(micro_step, "recorder_of", recorder_of)
    train(micro_config(*sets), str(synthetic_dataset), tmp_path / "recorded")
    plain, ours = (read(tmp_path / name / "log.jsonl") for name in ("plain", "recorded"))
    assert len(ours) == 20
    for a, b in zip(plain, ours):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-2)
    assert len(recorders) == 2, "one a stage"
    assert sum(r.replayed for r in recorders) > 24 and all(r.recorded >= 1 for r in recorders)


def test_graphs_that_cannot_be_are_refused_before_the_run(
    tmp_path, synthetic_dataset, micro_config, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"optim\.graphs=on needs a CUDA GPU"):
        train(micro_config("optim.graphs=on"), str(synthetic_dataset), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_dropout_that_is_drawn_again_is_no_part_of_a_recording(micro_config):
    why = micro_step.cannot_be_recorded
    blocks = micro_config("optim.checkpointing=true")
    assert "optim.recompute=attention" in why(blocks, 1, True)
    assert not why(micro_config("optim.checkpointing=true", "optim.recompute=attention"), 1, True)
    assert not why(micro_config(), 1, False)
    assert "optim.weights=half" in why(micro_config(), 2, False) and not why(micro_config(), 2, True)
