"""Local NetCDF files, one or many, as a data source."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipelines.opening.file_source import FileSource


@dataclass(frozen=True)
class NetCDF(FileSource):
    """NetCDF and HDF5 files that continue each other in time or bring further variables; keys: see `Files`."""

    engine = "netcdf"
