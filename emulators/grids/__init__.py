"""Grids of cells, one a file: the points of a name, the polygons of the cells, and the weights between two grids."""
