"""Open files and stores of any kind as one xarray Dataset."""
