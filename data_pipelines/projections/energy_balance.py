"""Simulate scenarios of a small climate whose forced response is known: two layers of heat, fixed patterns, noise.

    c dT/dt = F - lambda T - gamma (T - T_o),    c_o dT_o/dt = gamma (T - T_o)         (Geoffroy et al. 2013)
    F = 5.35 ln(C / 278) + 0.4 M + sum of area means of the aerosol forcing            (W m-2; Myhre et al. 1998)
    tas = p T + s A,    pr = 1 % of normal x (2.1 q T - 0.7 F_GHG / lambda + 0.6 A)

C in ppm is 278 + a / 7.8 of the cumulative CO2 in Gt, of which a share a = 0.42 to 0.6 stays in the air; M methane
emissions in Gt kept for 12 years, A the aerosol forcing, half of it where SO2 and black carbon are emitted and half
along their latitudes. p has polar amplification and a contrast of land and sea. Members differ by a noise that
remembers (red in time, smooth in space). The mean of infinitely many members is therefore known, and handed out as
`forced`. With `linear` the response is a pattern times the cumulative CO2, so that pattern scaling is exact.

Geoffroy et al. 2013, doi 10.1175/JCLI-D-12-00195.1; Myhre et al. 1998, doi 10.1029/98GL01908. The scenarios have the
names of those of ClimateBench, and are only like them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emulators.projections.scenarios import Scenario, ScenarioSet

HEAT, DEEP, FEEDBACK, EXCHANGE = 7.3, 106.0, 1.13, 0.73  # W a m-2 K-1 and W m-2 K-1
FUTURES = {  # year of the largest CO2 emissions, yearly growth before and after, aerosol and methane of 2100
    "ssp126": (2020, 1.000, 0.95, 0.15, 0.12),
    "ssp245": (2040, 1.005, 0.97, 0.35, 0.32),
    "ssp370": (2100, 1.009, 1.00, 0.90, 0.75),
    "ssp585": (2100, 1.015, 1.00, 0.40, 0.40),
}
HISTORICAL, FUTURE = np.arange(1850, 2015), np.arange(2015, 2101)
UNITS = {"tas": "K", "pr": "mm day-1"}


class EnergyBalance:
    """Simulate scenarios on a latitude-longitude grid.

    rows: of latitude; half as many again of longitude. members: of each scenario. noise: times the internal
    variability, 0.12 K of the global mean of a year. linear: true for a response that pattern scaling reproduces.
    train, test: of historical, hist-GHG, hist-aer, ssp126, ssp245, ssp370 and ssp585. period: first and last year that
    is scored. seed: of the noise.
    """

    def __init__(
        self,
        *,
        train: Sequence[str],
        test: Sequence[str],
        period: Sequence[int] = (2080, 2100),
        rows: int = 24,
        members: int = 30,
        noise: float = 1.0,
        linear: bool = False,
        seed: int = 0,
    ) -> None:
        if rows < 4 or members < 1 or noise < 0.0:
            raise ValueError(f"Expected rows >= 4, members >= 1, noise >= 0; got {rows}, {members} and {noise}.")
        self.train, self.test, self.period = list(train), list(test), (int(period[0]), int(period[1]))
        self.members, self.noise, self.linear, self.seed = members, noise, linear, seed
        step = 180.0 / rows
        self.latitude = 90.0 - step * (np.arange(rows) + 0.5)
        self.longitude = np.arange(3 * rows // 2) * 240.0 / rows
        self.phi, self.lam = np.meshgrid(np.deg2rad(self.latitude), np.deg2rad(self.longitude), indexing="ij")
        self.area = np.cos(self.phi) / np.cos(self.phi).mean()

    def read(self) -> ScenarioSet:
        """Return all scenarios, simulated."""
        past = self.scenario("historical", None)
        names = ["hist-GHG", "hist-aer", *FUTURES]
        scenarios = {"historical": past, **{name: self.scenario(name, past) for name in names}}
        return ScenarioSet(self.latitude, self.longitude, scenarios, self.train, self.test, self.period, UNITS)

    def scenario(self, name: str, past: Scenario | None) -> Scenario:
        """Simulate one scenario; a future one goes on from `past`."""
        years, drivers = self.drivers(name, past)
        before = past if name in FUTURES else None
        series = drivers if before is None else {n: np.concatenate([before.drivers[n], drivers[n]]) for n in drivers}
        forced = {name: maps[-len(years) :] for name, maps in self.response(series).items()}
        fields = {variable: maps + self.variability(name, variable, len(years)) for variable, maps in forced.items()}
        return Scenario(name, years, drivers, fields, before, forced)

    # --- what drives -------------------------------------------------------------------------------------------------

    def drivers(self, name: str, past: Scenario | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return years and drivers: cumulative CO2 and yearly CH4 in Gt, maps of SO2 and BC of area mean 1 in 2014."""
        if past is not None and name in FUTURES:
            return FUTURE, self.future(name, past)
        age = HISTORICAL - 1850.0
        greenhouse = {"CO2": np.cumsum(1.2 * np.expm1(age / 47.0)), "CH4": 0.03 + 0.33 * (age / 164.0) ** 2}
        amount = np.interp(HISTORICAL, [1850, 1930, 1980, 2014], [0.02, 0.35, 1.2, 1.0])
        share = np.interp(HISTORICAL, [1950, 2000], [0.1, 0.7])
        globe = {driver: series * (name != "hist-aer") for driver, series in greenhouse.items()}
        return HISTORICAL, globe | self.emitted(amount * (name != "hist-GHG"), share)

    def future(self, name: str, past: Scenario) -> dict[str, np.ndarray]:
        """Return the drivers of one of FUTURES."""
        peak, growth, decline, aerosol, methane = FUTURES[name]
        last = float(past.drivers["CO2"][-1] - past.drivers["CO2"][-2])
        yearly = last * growth ** (np.minimum(FUTURE, peak) - 2014.0) * decline ** np.maximum(FUTURE - peak, 0.0)
        globe = {
            "CO2": past.drivers["CO2"][-1] + np.cumsum(yearly),
            "CH4": np.interp(FUTURE, [2014, 2100], [0.36, methane]),
        }
        return globe | self.emitted(np.interp(FUTURE, [2014, 2100], [1.0, aerosol]), np.full(len(FUTURE), 0.7))

    def emitted(self, amount: np.ndarray, share: np.ndarray) -> dict[str, np.ndarray]:
        """Maps of SO2 and BC, (year, lat, lon). share: of the eastern of three sources."""
        west, europe, east = self.spot(40, 270, 12), self.spot(48, 15, 10), self.spot(30, 110, 13)
        others = 0.5 * (west + europe)
        so2 = amount[:, None, None] * ((1 - share)[:, None, None] * others + share[:, None, None] * east)
        burning = self.spot(-5, 20, 15)
        carbon = amount[:, None, None] * (0.6 * east + 0.4 * burning)
        return {"SO2": so2, "BC": carbon}

    def spot(self, latitude: float, longitude: float, width: float) -> np.ndarray:
        """A source of area mean 1 around a place. width: degrees, in which it falls by exp(-1/2)."""
        phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
        cosine = np.sin(self.phi) * np.sin(phi) + np.cos(self.phi) * np.cos(phi) * np.cos(self.lam - lam)
        bell = np.exp((cosine - 1.0) / np.deg2rad(width) ** 2)
        return bell / (bell * self.area).mean()

    # --- what answers ------------------------------------------------------------------------------------------------

    def response(self, drivers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return forced anomalies of temperature and precipitation, (year, lat, lon)."""
        warming, moistening = self.pattern(0.55, 0.25), self.pattern(-0.3, 0.1) * (1.0 + 0.8 * np.cos(6 * self.phi))
        normal = 1.0 + 5.0 * np.exp(-((self.phi / 0.25) ** 2)) + 1.5 * np.exp(-(((np.abs(self.phi) - 0.8) / 0.3) ** 2))
        if self.linear:
            index = (0.45 / 1000.0 * drivers["CO2"])[:, None, None]
            return {"tas": warming * index, "pr": 0.02 * normal * moistening * index}
        airborne = (0.42 + 2.2e-5 * drivers["CO2"]) / 7.8
        greenhouse = 5.35 * np.log1p(airborne * drivers["CO2"] / 278.0) + 0.4 * _kept(drivers["CH4"], 12.0)
        aerosol = -0.6 * self.spread_out(drivers["SO2"]) + 0.15 * self.spread_out(drivers["BC"])
        forcing = greenhouse + (aerosol * self.area).mean(axis=(1, 2))
        globe = two_layers(forcing)[:, None, None]
        fast = (greenhouse / FEEDBACK)[:, None, None]
        return {
            "tas": warming * globe + 0.35 * aerosol,
            "pr": 0.01 * normal * (2.1 * moistening * globe - 0.7 * fast + 0.6 * aerosol),
        }

    def pattern(self, polar: float, land: float) -> np.ndarray:
        """A pattern of area mean 1: more towards the poles, and over two continents."""
        contrast = self.spot(40, 80, 35) + self.spot(45, 260, 25)
        shape = 1.0 + polar * (3 * np.sin(self.phi) ** 2 - 1) + land * np.tanh(contrast) + 0.1 * np.sin(self.phi)
        return shape / (shape * self.area).mean()

    def spread_out(self, maps: np.ndarray) -> np.ndarray:
        """Half of the emission acts where it is, half along its latitudes."""
        return 0.5 * maps + 0.5 * maps.mean(axis=2, keepdims=True)

    def variability(self, name: str, variable: str, years: int) -> np.ndarray:
        """Return noise, (member, year, lat, lon): smooth patterns with first-order memory, each member its own."""
        number = ["historical", "hist-GHG", "hist-aer", *FUTURES].index(name)
        random = np.random.default_rng([self.seed, number, list(UNITS).index(variable)])
        patterns = np.stack([self.wave(zonal, order) for zonal in range(5) for order in range(1, 6)])
        size, memory = {"tas": 0.12, "pr": 0.02}[variable], 0.6
        draws = random.standard_normal((self.members, years + 30, len(patterns)))
        series = np.zeros_like(draws)
        for year in range(years + 30):  # the first thirty are forgotten
            series[:, year] = memory * series[:, year - 1] * (year > 0) + np.sqrt(1 - memory**2) * draws[:, year]
        amplitudes = self.noise * size * np.array([1.0 if n < 2 else 2.2 / np.sqrt(1 + n / 4) for n in range(25)])
        return np.tensordot(series[:, 30:] * amplitudes, patterns, axes=1)

    def wave(self, zonal: int, order: int) -> np.ndarray:
        """A smooth pattern; the first of all is the same everywhere."""
        if zonal == 0 and order == 1:
            return np.ones_like(self.phi)
        return np.cos(order * (self.phi + 0.4 * zonal)) * np.cos(zonal * self.lam + 1.7 * order) * np.sqrt(2.0)


def _kept(emissions: np.ndarray, years: float) -> np.ndarray:
    """What is in the air of yearly emissions that decay with an e-folding time."""
    burden, series = float(emissions[0]), []
    for amount in emissions:
        burden += (float(amount) - burden) / years
        series.append(burden)
    return np.array(series)


def two_layers(forcing: np.ndarray, steps: int = 12) -> np.ndarray:
    """Return the temperature of the upper layer at the end of each year."""
    upper, lower, series = 0.0, 0.0, []
    for value in forcing:
        for _ in range(steps):
            down = EXCHANGE * (upper - lower)
            upper += (value - FEEDBACK * upper - down) / HEAT / steps
            lower += down / DEEP / steps
        series.append(upper)
    return np.array(series)
