"""A scene that plays in a browser: packed numbers, and the player that draws them with WebGL2."""
