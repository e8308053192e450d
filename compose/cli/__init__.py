"""`orbit4d compose`: the command, its subcommands, and the run behind them."""
