"""Pure functions of atmospheric physics."""
