"""Project emissions or forcings to annual maps, and score the maps beside internal variability."""
