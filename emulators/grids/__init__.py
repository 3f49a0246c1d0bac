"""Grids of cells, one a file: the points of a name, and the polygons of the cells."""
