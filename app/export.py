"""`orbit4d export`: a dataset or a scene, told apart by what lies in the folder."""

from __future__ import annotations

import click


def _is_scene(path: str) -> bool:
    import fsspec

    store, root = fsspec.core.url_to_fs(path)
    return store.exists(f"{root.rstrip('/')}/scene.json")


class ExportCommand(click.Command):
    """Hands its words to the export of the room that owns the input."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        source = next((word for word in args if not word.startswith("-")), None)
        if source is None:
            return super().parse_args(ctx, args)
        ctx.obj = (self._room(source), args)
        return []

    def _room(self, source: str) -> click.Command:
        if _is_scene(source):
            from orbit4d.recon4d.cli import export_scene

            return export_scene
        from orbit4d.datasets.cli import export

        return export

    def invoke(self, ctx: click.Context) -> object:
        target, args = ctx.obj
        return target.main(args=args, prog_name=ctx.command_path, standalone_mode=False)


@click.command(cls=ExportCommand, short_help="Write a dataset or a scene in another layout.")
@click.argument("source", metavar="DATASET|SCENE")
def command(source: str) -> None:
    """Write a dataset or a reconstructed scene in another layout.

    What a DATASET can become: `orbit4d export DATASET --help`; a SCENE: `orbit4d export SCENE --help`.

    \b
    Example: orbit4d export demo/dataset --format nerfstudio --out nerf/
             orbit4d export demo/scene --format ply-sequence --out ply/
    """
