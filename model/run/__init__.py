"""The RUN folder: checkpoints, claim, log."""
