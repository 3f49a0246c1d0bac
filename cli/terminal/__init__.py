"""What the terminal shows: help, tables, progress bars, findings."""
