"""Images in and out, mattes, and the measures taken on pixels."""
