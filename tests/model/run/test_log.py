"""The log of a run, where others keep it too."""

from __future__ import annotations

import json
import sys
import types

from orbit4d.model.run.claim import claimed
from orbit4d.model.run.log import RunLog


def test_a_resumed_run_goes_on_in_the_same_wandb_run(tmp_path, monkeypatch, micro_config):
    """Without an id, `resume="allow"` starts another run."""
    started, logged = [], []

    class Run:
        def log(self, numbers, step):
            logged.append((step, numbers))

        def finish(self):
            logged.append("finished")

    def init(**kwargs):
        started.append(kwargs)
        return Run()

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    run, other = tmp_path / "run", tmp_path / "other"
    other.mkdir()
    with claimed(run, micro_config(), resume=False):
        for from_step in (0, 1):
            log = RunLog(run, from_step, ("wandb",), {"seed": 0})
            log.write({"step": from_step + 1, "stage": "static", "loss": 0.5})
            log.close()
    RunLog(other, 0, ("wandb",)).close()
    first, second, elsewhere = started
    assert first["id"] and first["id"] == second["id"] != elsewhere["id"]
    assert all(kwargs["resume"] == "allow" for kwargs in started)
    assert json.loads((run / "wandb.json").read_text()) == {"id": first["id"]}
    assert logged[:2] == [(1, {"loss": 0.5}), "finished"]
    # A start that took no step makes way for another run, there as well.
    (run / "log.jsonl").write_text("")
    with claimed(run, micro_config("seed=1"), resume=False):
        RunLog(run, 0, ("wandb",)).close()
    assert started[-1]["id"] != first["id"]
