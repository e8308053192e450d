"""Single orbits on a Wan base: cameras, motion and conditions as an `OrbitUNet` takes them."""
