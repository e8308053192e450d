"""`python -m orbit4d.app` is the command `orbit4d`."""

from orbit4d.app.cli import main

if __name__ == "__main__":
    main()
