"""Fields computed from other fields: diagnostics, forcings, regridding, selections."""
