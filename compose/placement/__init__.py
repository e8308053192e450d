"""Where concepts stand in one world: lift through depth, paths on the ground, facing, bounded refinement."""
