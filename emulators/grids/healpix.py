"""HEALPix: 12 n^2 cells of equal area on rings of latitude (Gorski et al. 2005, doi 10.1086/427976).

In the ring scheme cells are counted along rings from the north; in the nested scheme the cells of each of the 12 faces
follow each other as a quadtree counts them, bit by bit of the coordinates x (towards north-east) and y (north-west).
The points are the centres of the cells. Their equal weights integrate spherical harmonics of
degree 2 to 1 / (32 n^2), lower ones exactly.
"""

from __future__ import annotations

import numpy as np

from emulators.grid import Grid, PointGrid
from emulators.sphere.polygons import Cells

EXAMPLES = ("healpix:4", "healpix:4:nested")
FORMS = "healpix:8 (rings), healpix:8:nested"
FAMILY = "healpix"
RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])  # of the southern corner of each face, in units of n
TURN = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])  # of the middle of each face, in eighths of the circle
SIDES = 4  # pieces on a side of a cell


def named(name: str) -> PointGrid | None:
    """Return the grid of a name: healpix:8 in the ring scheme, or healpix:8:nested; n is a power of 2 where nested."""
    word, _, rest = name.partition(":")
    count, _, scheme = rest.partition(":")
    if word != FAMILY or not count.isdigit() or scheme not in ("", "ring", "nested"):
        return None
    n = int(count)
    if n < 1 or (scheme == "nested" and n & (n - 1)):
        raise ValueError(f"{name}: expected at least 1 cell on a side of a face, a power of 2 where nested; got {n}.")
    z, longitude = _place(*_coordinates(n, scheme == "nested"), n)
    area = np.full(z.size, 4.0 * np.pi / z.size)
    scheme = ":nested" if scheme == "nested" else ""
    return PointGrid(np.rad2deg(np.arcsin(z)), np.rad2deg(longitude), area, FAMILY, f"healpix:{n}{scheme}")


def recognised(latitude: np.ndarray, longitude: np.ndarray) -> PointGrid | None:
    """Return the grid of these points if they are those of HEALPix, in either order."""
    n = round((latitude.size / 12) ** 0.5)
    if n < 1 or 12 * n * n != latitude.size:
        return None
    actual = PointGrid(latitude, longitude, np.ones(latitude.size))
    names = [f"healpix:{n}", *([f"healpix:{n}:nested"] if not n & (n - 1) else [])]
    return next((grid for grid in map(named, names) if grid is not None and grid.same_as(actual, 2e-3)), None)


def cells(grid: Grid) -> Cells:
    """Return the cells; their sides, curves, are cut into pieces between which they are arcs of great circles."""
    assert isinstance(grid, PointGrid)
    words = grid.name.split(":")
    n = round((grid.size / 12) ** 0.5)
    face, x, y = _coordinates(n, words[-1] == "nested")
    step = np.arange(SIDES) / SIDES
    i, j = (offset.reshape(-1) for offset in np.meshgrid(step, step, indexing="ij"))
    corners = []
    for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
        at = (x[:, None] - 0.5 + i + a / SIDES, y[:, None] - 0.5 + j + b / SIDES)
        z, longitude = _place(face[:, None], *at, n)
        level = np.sqrt(np.clip(1.0 - z * z, 0.0, None))
        corners.append(np.stack([level * np.cos(longitude), level * np.sin(longitude), z], axis=-1))
    return Cells(np.stack(corners, axis=2).reshape(-1, 4, 3), np.repeat(np.arange(grid.size), SIDES**2), grid.size)


def face_cells(grid: Grid) -> np.ndarray:
    """Return the numbers of the cells of each face in rows and columns, (12, n, n).

    Rows run from the north-eastern side of a face to the south-western, columns from the north-western to the
    south-eastern, as in Karlbauer et al. 2024, doi 10.1029/2023MS004021. Raises ValueError for another grid.
    """
    if not isinstance(grid, PointGrid) or grid.family != FAMILY:
        raise ValueError(
            f"Expected a HEALPix grid, with its 12 faces of n x n cells; got {grid}. Regrid the data: "
            "`emul data regrid grid=healpix:32`, or data=regridded data.grid=healpix:32."
        )
    n = round((grid.size / 12) ** 0.5)
    face, x, y = _coordinates(n, grid.name.endswith(":nested"))
    cells = np.empty((12, n, n), dtype=np.int64)
    cells[face, n - 1 - x, n - 1 - y] = np.arange(grid.size)
    return cells


def _place(face: np.ndarray, x: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sine of latitude and longitude in radians at coordinates x, y of a face, cell centres at whole numbers."""
    x, y = (coordinate + 0.5 for coordinate in (x, y))
    ring = RING[face] * n - x - y  # distance from the north pole, n where the cap ends and 3 n where the other begins
    width = np.where(ring < n, ring, np.where(ring > 3 * n, 4 * n - ring, n))
    third = 1.0 - width**2 / (3.0 * n * n)
    z = np.where(ring < n, third, np.where(ring > 3 * n, -third, 2.0 * (2 * n - ring) / (3.0 * n)))
    across = np.divide(x - y, width, out=np.zeros(np.broadcast(x, width).shape), where=width > 0)
    return z, 0.25 * np.pi * (TURN[face] + across)


def _coordinates(n: int, nested: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return face and x, y, whole numbers below n, of every cell in its order."""
    face, inside = np.divmod(np.arange(12 * n * n), n * n)
    if nested:
        x, y = np.zeros_like(inside), np.zeros_like(inside)
        for bit in range(max(1, n.bit_length())):
            x |= (inside >> (2 * bit) & 1) << bit
            y |= (inside >> (2 * bit + 1) & 1) << bit
        return face, x, y
    x, y = inside % n, inside // n
    z, longitude = _place(face, x, y, n)
    order = np.lexsort((np.round(np.mod(longitude, 2.0 * np.pi), 9), -np.round(z, 9)))
    return face[order], x[order], y[order]
