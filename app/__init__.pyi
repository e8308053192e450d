from orbit4d.app.cli import main as main
