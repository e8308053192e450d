"""`accelerate launch` on two gloo processes: the losses of one process, and one decision on when to stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from orbit4d.model.config.presets import preset
from orbit4d.model.config.settings import flatten, to_dict
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.log import read
from orbit4d.model.training.train import train

#: SIGTERM reaches one of the two processes alone, in its third step.
ONE_IS_STOPPED = """
    import os, signal
    from orbit4d.datasets.commands.command import leave, run
    from orbit4d.model.training import steps as module
    from orbit4d.model.cli.train import train
    real, calls = module.training_loss, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    module.training_loss = interrupted
    leave(run(train, prog_name="orbit4d train"))
"""


@pytest.mark.slow
def test_two_processes_stop_together_and_go_through_the_losses_of_one(
    tmp_path, synthetic_dataset, micro_config
):
    """The samples of a step and their noise do not depend on the number of processes, so the losses differ
    by the order of sums alone: by 1e-6 in the first step, more after each optimizer step. Dropout is off,
    since each process draws its own."""
    config = micro_config(
        "steps=5", "model.unet.temporal_dropout=0.0", "optim.batch=1", "checkpoint_every=100"
    )
    ours, named = flatten(to_dict(config)), flatten(to_dict(preset("tiny")))
    changed = [f"{key}={json.dumps(value)}" for key, value in ours.items() if named[key] != value]
    command = [str(synthetic_dataset), "--out", str(tmp_path / "two")]
    command += [part for assignment in changed for part in ("--set", assignment)]
    script = tmp_path / "one_is_stopped.py"
    script.write_text(textwrap.dedent(ONE_IS_STOPPED))

    def launch(*what):
        # Where accelerate counts GPUs it takes --multi_gpu as given; here it stands for "several processes".
        return subprocess.run(
            [
                sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                "--main_process_port", "0", *what,
            ],
            capture_output=True, text=True, timeout=240, cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip

    stopped = launch(str(script), *command)
    assert stopped.returncode != 0
    last = run_checkpoint.latest(tmp_path / "two")
    assert last is not None and last.name == "step-000003", stopped.stderr[-3000:]
    assert len(read(tmp_path / "two" / "log.jsonl")) == 3, "both stopped after the same step"
    resumed = launch("-m", "orbit4d.model.train_main", *command, "--resume")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert (tmp_path / "two" / "model" / "model_index.json").is_file()
    train(config, str(synthetic_dataset), tmp_path / "one")
    one, two = ([row["loss"] for row in read(tmp_path / name / "log.jsonl")] for name in ("one", "two"))
    assert len(two) == config.total_steps
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    assert two == pytest.approx(one, rel=2e-3)
