"""Train the tiny preset on a dataset. 800 steps take five minutes on two CPU cores; 20 show that it runs.

python examples/07_train_tiny.py demo/dataset run 20
"""

import json
import sys
from pathlib import Path

from orbit4d.model import override, preset, train

dataset = sys.argv[1] if len(sys.argv) > 1 else "demo/dataset"
run = Path(sys.argv[2] if len(sys.argv) > 2 else "run")
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 20

config = override(preset("tiny"), [f"steps={steps}"])
model = train(config, dataset, run)

rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
print(f"loss {rows[0]['loss']:.4f} at step {rows[0]['step']}, {rows[-1]['loss']:.4f} at {rows[-1]['step']}")
print(f"model: {model}")
