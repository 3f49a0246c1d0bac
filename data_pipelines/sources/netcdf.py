"""Local NetCDF files, one or many, as a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipelines.opening.file_source import FileSource


@dataclass(frozen=True)
class NetCDF(FileSource):
    """Read NetCDF and HDF5 files, joined in time or by variable; keys: see `Files`."""

    engine = "netcdf"
