"""Spectra of forecasts and of their truth: sums over initial times by lead, channel and total wavenumber.

    P(l) = mean over inits of sum_m |a_lm|^2 / (4 pi),   C(l) = mean of Re sum_m a conj(b) / sqrt(mean P_a mean P_b)

P(l) is the part of the area mean of the square that belongs to l; its wavelength is 2 pi a / l. Forecasts that blur
lose power at the small scales first, and noise has too much of it: the effective resolution is the last wavenumber up
to which the power of a forecast is near the truth's at all scales (`emulators.sphere.spectra`); spectral divergence and
residual (`emulators.scores.spectral_errors`) measure how the shape of the spectrum departs from the truth's at the
smallest. Sums of any batches or processes add up to the
whole. Subich et al. 2025, arXiv 2501.19374; effective resolution after Skamarock 2004, doi 10.1175/MWR2830.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid
from emulators.scores.spectral_errors import image_power, spectral_divergence, spectral_residual
from emulators.sphere.spectra import (
    EffectiveResolution,
    cross_power,
    effective_resolution,
    harmonics_of,
    last_degree,
    power,
)
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.channels import encode_leads, level_block, level_coordinate
from emulators.world import World

if TYPE_CHECKING:
    import xarray as xr


BLOCK = 2**22  # numbers transformed at a time: 32 MiB a field


class LeadSpectra:
    """Accumulate spectra by lead, channel and total wavenumber; four float64 rows a lead and channel.

    leads: those that are kept, timedelta64. threshold: share of the truth's power that counts as resolved. chaosbench:
    divergence and residual also as ChaosBench takes them, for which two float64 fields a lead and channel are held. A
    field with a missing value has no spectrum; such pairs are left out. Transforms are float64, on the CPU; their
    tables, for both ways, take 8 to 10 lat^3 bytes: 3 GB at a quarter of a degree. ValueError on grids without
    spherical harmonics: limited areas, points that lie on no rings, and fewer than 4 rows.
    """

    def __init__(
        self,
        world: World,
        variables: VariableSet,
        leads: Sequence[np.timedelta64],
        *,
        threshold: float = 0.5,
        chaosbench: bool = False,
    ) -> None:
        grid = world.grid
        if chaosbench or isinstance(grid, LatLonGrid):
            grid = world.lat_lon  # the images of ChaosBench have rows and columns
        if grid.shape[0] < 4:
            raise ValueError(f"a spectrum by total wavenumber needs at least 4 rows of latitude; got {grid!r}.")
        if not 0 < threshold <= 1:
            raise ValueError(f"The threshold is a share of the truth's power, above 0 and at most 1; got {threshold}.")
        self.harmonics = harmonics_of(grid, dtype=torch.float64)
        self.variables, self.threshold = variables, threshold
        self.leads = np.asarray(leads, dtype="timedelta64[s]")
        shape = (len(self.leads), variables.size)
        self._sum = np.zeros((4, *shape, self.harmonics.degrees))  # forecast, truth, what they share, ensemble mean
        self._members = 0
        self._count, self._left_out = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self._fields = np.zeros((2, *shape, *grid.shape)) if chaosbench else None  # sums of forecast and truth

    def add(self, prediction: State, target: State, lead: np.timedelta64) -> None:
        """Add a batch of forecasts of one lead and their truth; a lead that is not kept is passed over.

        prediction: ([member,] batch, channel, *grid). Of an ensemble the spectra of the members are averaged, and that
        of their mean is kept beside.
        """
        rows = np.flatnonzero(self.leads == lead)
        if not rows.size:
            return
        forecast, truth = (_channels(state, self.variables) for state in (prediction, target))
        members = forecast if len(prediction.lead) == 2 else forecast[None]
        missing = truth.flatten(2).isnan().any(2) | members.flatten(3).isnan().any(3).any(0)  # (batch, channel)
        for member in members:
            for place, (predicted, other) in enumerate(zip(member, truth, strict=True)):
                sums = torch.where(missing[place, :, None], 0.0, self._spectra(predicted, other))
                self._sum[:3, rows[0]] += sums.numpy() / len(members)
        self._members = max(self._members, len(members))
        for place, (mean, other) in enumerate(zip(members.double().mean(0), truth, strict=True)):
            if len(members) > 1:
                sums = torch.where(missing[place, :, None], 0.0, self._spectra(mean, other)[0])
                self._sum[3, rows[0]] += sums.numpy()
        if self._fields is not None:
            for side, fields in enumerate((members.double().mean(0), truth.double())):
                self._fields[side, rows[0]] += fields.where(~missing[:, :, None, None], 0.0).sum(0).numpy()
        self._count[rows[0]] += (~missing).sum(0).numpy()
        self._left_out[rows[0]] += missing.sum(0).numpy()

    def _spectra(self, forecast: Tensor, truth: Tensor) -> Tensor:
        """(channel, *grid) each -> power of the forecast, of the truth, what they share: (3, channel, degree)."""
        step = max(1, BLOCK // forecast[0].numel())
        parts = []
        for start in range(0, len(forecast), step):
            fields = (field[start : start + step].double() for field in (forecast, truth))
            a, b = (self.harmonics.analysis(f.permute(*reversed(range(f.ndim)))) for f in fields)
            parts.append(torch.stack([power(a), power(b), cross_power(a, b)]).transpose(1, 2))
        return torch.cat(parts, dim=1) / (4.0 * torch.pi)

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far as arrays, to be stored, sent, or added to others by `add_partial`."""
        arrays = {
            "members": np.array(self._members),
            "sum": self._sum.copy(),
            "count": self._count.copy(),
            "left_out": self._left_out.copy(),
        }
        if self._fields is not None:
            arrays["fields"] = self._fields.copy()
        return {**arrays, "labels": np.array(self._labels())}

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> LeadSpectra:
        """Add the sums of other spectra of the same leads, variables and grid."""
        if str(partial["labels"]) != self._labels():
            raise ValueError("Only sums of the same leads, variables and grid can be added up.")
        if self._fields is not None:
            self._fields += partial["fields"]
        self._sum += partial["sum"]
        self._members = max(self._members, int(partial["members"]))
        self._count += partial["count"]
        self._left_out += partial["left_out"]
        return self

    def _labels(self) -> str:
        extra = "fields" if self._fields is not None else ""
        return json.dumps([self.leads.astype(int).tolist(), self.variables.plain(), self.harmonics.grid.plain(), extra])

    def means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Power of the forecast and of the truth, and coherence, (lead, channel, degree); NaN where nothing was."""
        with np.errstate(invalid="ignore", divide="ignore"):
            forecast, truth, shared = self._sum[:3] / self._count[..., None]
            return forecast, truth, shared / np.sqrt(forecast * truth)

    def mean_power(self) -> np.ndarray | None:
        """Power of the ensemble mean, (lead, channel, degree); None where the forecasts have no members."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._sum[3] / self._count[..., None] if self._members > 1 else None

    def effective_resolution(self) -> EffectiveResolution:
        """Return it by (lead, channel); it means nothing where no pair was added (`counted`)."""
        forecast, truth, coherence = (torch.from_numpy(np.moveaxis(part, -1, 0)) for part in self.means())
        declared = [v.truncation if v.truncation is not None else -1 for v in self.variables for _ in v.channels]
        measured, limits = last_degree(truth), torch.tensor(declared)
        last = torch.where(limits >= 0, limits.clamp(max=len(truth) - 1), measured)
        return effective_resolution(forecast, truth, self.threshold, coherence=coherence, last=last)

    @property
    def counted(self) -> np.ndarray:
        """True where any pair was added, (lead, channel)."""
        return self._count > 0

    def shape_errors(self) -> dict[str, np.ndarray]:
        """Spectral divergence and residual, (lead, channel), NaN where nothing was; of mean power by total wavenumber
        and, where its fields are kept, in ChaosBench's form."""
        powers = {"": [torch.from_numpy(np.moveaxis(part, -1, 0)) for part in self.means()[:2]]}
        if self._fields is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                means = self._fields / self._count[..., None, None]
            powers["_chaosbench"] = [image_power(torch.from_numpy(fields)) for fields in means]
        return {
            f"{name}{form}": distance(forecast, truth).numpy()
            for form, (forecast, truth) in powers.items()
            for name, distance in (("divergence", spectral_divergence), ("residual", spectral_residual))
        }

    def dataset(self, attributes: Mapping[str, object] | None = None) -> xr.Dataset:
        """By variable v: `v` (source, lead_time, [level,] total_wavenumber) in units squared, of forecast, truth and,
        where there are members, `ensemble_mean`; and `v_coherence`,
        `v_effective_resolution`, `v_coherent_resolution`, `v_noise`, `v_noise_degree`, `v_last_degree`,
        `v_spectral_divergence` and `v_spectral_residual` without the source."""
        import xarray as xr

        forecast, truth, coherence = self.means()
        mean = self.mean_power()
        powers = {"forecast": forecast, "truth": truth} | ({} if mean is None else {"ensemble_mean": mean})
        resolution = self.effective_resolution()
        with np.errstate(divide="ignore"):
            coherent = 2 * np.pi * EARTH_RADIUS / resolution.coherent.numpy()
        further = {
            "effective_resolution": ("m", resolution.wavelength.numpy()),
            "coherent_resolution": ("m", coherent),
            "noise": ("1", resolution.noise.numpy()),
            "noise_degree": ("1", resolution.noise_degree.numpy()),
            "last_degree": ("1", resolution.last.numpy()),
        }
        shape_errors = self.shape_errors()
        arrays = {}
        for variable in self.variables:
            name, unit = variable.name, f"({variable.units})2" if variable.units else ""
            power_attributes = {
                "units": unit,
                "long_name": "part of the area mean of the square that belongs to a total wavenumber",
            }
            arrays[name] = (*self._block(variable, np.stack([*powers.values()]), ("source",), 1), power_attributes)
            arrays[f"{name}_coherence"] = (*self._block(variable, coherence), {"units": "1"})
            for kind, (units, values) in further.items():
                counted = np.where(self.counted, values, np.nan)
                arrays[f"{name}_{kind}"] = (*self._block(variable, counted), {"units": units})
            for kind, errors in shape_errors.items():
                arrays[f"{name}_spectral_{kind}"] = (*self._block(variable, errors), {"units": "1"})
        degrees = np.arange(self.harmonics.degrees)
        with np.errstate(divide="ignore"):
            wavelength = 2 * np.pi * EARTH_RADIUS / degrees
        coords = {
            "source": [*powers],
            "lead_time": self.leads.astype("timedelta64[ns]"),
            "total_wavenumber": degrees,
            "wavelength": ("total_wavenumber", wavelength, {"units": "m", "long_name": "2 pi a / l"}),
        }
        facts: dict[str, object] = {
            "effective_resolution": resolution.convention,
            "left_out": int(self._left_out.sum()),
        }
        coords |= level_coordinate(self.variables)
        return encode_leads(xr.Dataset(arrays, coords, {**facts, **(attributes or {})}))

    def _block(
        self, variable: Variable, values: np.ndarray, before: tuple[str, ...] = (), axis: int = 0
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Dims and values of one variable out of (*before, lead, channel[, degree]); axis: that of the lead."""
        after = ("total_wavenumber",) if values.ndim == axis + 3 else ()
        level = ("level",) if variable.levels else ()
        return (*before, "lead_time", *level, *after), level_block(values, axis + 1, variable, self.variables)


def _channels(state: State, variables: VariableSet) -> Tensor:
    """The channels of `variables`, (..., channel, lat, lon)."""
    position = {channel: index for index, channel in enumerate(state.variables.channels)}
    absent = [channel for channel in variables.channels if channel not in position]
    if absent:
        raise ValueError(f"Expected {', '.join(absent[:5])} for spectra; there is {', '.join(list(position)[:10])}.")
    index = torch.tensor([position[channel] for channel in variables.channels])
    return state.values.detach().cpu().index_select(state.channel_axis, index)
