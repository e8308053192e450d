"""One image and a sentence become 4D Gaussians: still object, motion, appearance."""
