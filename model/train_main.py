"""`orbit4d train` as a module, for launchers that start Python modules on many processes:

accelerate launch --num_processes 8 -m orbit4d.model.train_main DATASET --out RUN --preset videomv-image
"""

from orbit4d.datasets.commands.command import leave, run
from orbit4d.model.cli.train import train

if __name__ == "__main__":
    leave(run(train, prog_name="orbit4d train"))
