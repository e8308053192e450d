"""What the commands share: their types of parameters, their streams, their ends."""
