"""The commands; `scripts/` and the installed console commands start them."""
