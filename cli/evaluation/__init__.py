"""Open and match what `emul eval` scores: forecast, truth, climatology and options; compare, project."""
