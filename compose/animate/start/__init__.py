"""What a run starts from: an image, a still object."""
