"""What every loss, constraint, metric and network must do, and small Worlds to try them on."""
