"""Sweeps and scaling studies: their trials, points and curves read from runs, tables, fits and predictions."""
