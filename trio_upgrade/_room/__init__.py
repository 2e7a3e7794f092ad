"""One message to many streams."""
