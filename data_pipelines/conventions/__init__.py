"""Convert any dataset to one form: names, units, calendars, dimensions."""
