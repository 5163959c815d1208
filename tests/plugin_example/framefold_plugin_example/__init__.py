"""A stage and a codec that framefold finds by their entry points."""
