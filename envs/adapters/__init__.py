"""These environments behind other people's interfaces."""
