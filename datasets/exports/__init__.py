"""What exports share: settings, frame rules, sizes, captions, controls, cameras as text, and their place."""
