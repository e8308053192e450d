"""A skeleton as a deformation: bones, channels, skins with full covariance."""
