"""Icosahedral grids: vertices or triangle centres of a refined icosahedron (Sadourny et al. 1968,
doi 10.1175/1520-0493(1968)096<0351:IOTBVE>2.0.CO;2).

Level n has 10 * 4^n + 2 vertices, each with the places nearest to it as its cell, and 20 * 4^n triangles. Areas are
exact; by their symmetry the points integrate spherical harmonics up to degree 2 exactly, higher ones to about 4^-n.
"""

from __future__ import annotations

import numpy as np

from emulators.grid import Grid, PointGrid, degrees_of
from emulators.meshes.icosahedra import icosahedra
from emulators.sphere.polygons import Cells, polygon_areas, voronoi_cells

EXAMPLES = ("icosahedral:2", "icosahedral:2:triangles")
FORMS = "icosahedral:4 (vertices), icosahedral:4:triangles"
FAMILY = "icosahedral"


def named(name: str) -> PointGrid | None:
    """Return the grid of a name: icosahedral:4, the vertices of level 4, or icosahedral:4:triangles."""
    word, _, rest = name.partition(":")
    level, _, what = rest.partition(":")
    if word != FAMILY or not level.isdigit() or what not in ("", "vertices", "triangles"):
        return None
    nodes, faces = _mesh(int(level))
    if what == "triangles":
        centres = nodes[faces].sum(1)
        return PointGrid(*degrees_of(centres), polygon_areas(nodes[faces]), FAMILY, f"{FAMILY}:{int(level)}:triangles")
    return PointGrid(*degrees_of(nodes), voronoi_cells(nodes).areas, FAMILY, f"{FAMILY}:{int(level)}")


def cells(grid: Grid) -> Cells:
    """Return the triangles, or the cells around vertices."""
    assert isinstance(grid, PointGrid)
    nodes, faces = _mesh(int(grid.name.split(":")[1]))
    if grid.name.endswith("triangles"):
        return Cells(nodes[faces], np.arange(len(faces)), len(faces))
    return voronoi_cells(nodes)


def _mesh(level: int) -> tuple[np.ndarray, np.ndarray]:
    mesh = icosahedra(level)[-1]
    return mesh.nodes, mesh.faces
