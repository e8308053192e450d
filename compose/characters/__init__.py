"""Assets as drivable Gaussians: skeletons read, motions swapped, gaits measured, concepts fitted."""
