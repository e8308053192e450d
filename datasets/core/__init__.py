"""What every package stands on: errors, storage, progress, commands, lazy names, kernels' compilation."""
