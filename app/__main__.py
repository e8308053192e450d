"""`python -m orbit4d.app` is the command `orbit4d`."""

from orbit4d.app.cli import main

main()
