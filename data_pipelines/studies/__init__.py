"""Sweeps and scaling studies: their trials; points and curves read from runs, fits, predictions, the report."""
