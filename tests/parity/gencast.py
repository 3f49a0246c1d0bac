"""GenCast's own noise and sampler, run on numbers given to them, from a checkout of google-deepmind/graphcast.

Needs jax, dm-haiku, chex, dm-tree, xarray and dinosaur-dycore, and checkouts of google-deepmind/graphcast and
google-deepmind/xarray_jax in the folder that EMUL_PEERS names.

    EMUL_PEERS=... python tests/parity/gencast.py      # writes tests/data/gencast.npz anew
"""

from __future__ import annotations

import os
import sys
import types
from functools import cache

import numpy as np

from places import DATA

FILE = DATA / "gencast.npz"
SHAPE = (2, 1, 8, 16)  # batch, time, lat, lon


@cache
def reference() -> dict[str, np.ndarray]:
    """What they make of given numbers: a field of noise, and a sample with 20 levels and churn."""
    sys.path[:0] = [os.path.join(os.environ["EMUL_PEERS"], name) for name in ("graphcast", "xarray_jax")]
    import jax
    import jax.numpy as jnp
    import xarray
    import xarray_jax
    from weathernext.weathernext1_gen import dpm_solver_plus_plus_2s, samplers_utils

    generator = np.random.default_rng(0)
    latitude = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(SHAPE[2])[0]))
    longitude = np.arange(SHAPE[3]) * 360.0 / SHAPE[3]
    axes = ("batch", "time", "lat", "lon")
    template = xarray.Dataset({"a": (axes, np.zeros(SHAPE, np.float32))}, {"lat": latitude, "lon": longitude})
    numbers = generator.standard_normal((*SHAPE[:2], SHAPE[3] // 2, SHAPE[3] - 1)).astype(np.float32)
    draws = generator.standard_normal((40, *SHAPE)).astype(np.float32)
    drawn = iter(draws)

    samplers_utils.hk = types.SimpleNamespace(next_rng_key=lambda: None)
    jax.random.normal = lambda key, shape: jnp.asarray(numbers.reshape(shape))
    noise = samplers_utils.spherical_white_noise_like(template)
    orders = samplers_utils.Grid.for_nodal_data(template["a"]).longitude_wavenumber_coords.data

    def given(like):
        return like.map(lambda a: xarray_jax.DataArray(jnp.asarray(next(drawn)), dims=a.dims, coords=a.coords))

    def loop(first, last, body_fun, init_val):
        for number in range(first, last):
            init_val = body_fun(jnp.asarray(number), init_val)
        return init_val

    def denoiser(inputs, noisy_targets, noise_levels, forcings=None):
        whole = noise_levels**2 + 1.0
        return noisy_targets.map(lambda a: a / whole + 0.5 * xarray_jax.apply_ufunc(jnp.sin, a / whole**0.5))

    samplers_utils.spherical_white_noise_like = given
    dpm_solver_plus_plus_2s.hk = types.SimpleNamespace(fori_loop=loop)
    sampler = dpm_solver_plus_plus_2s.Sampler(denoiser, 80.0, 0.03, 20, 7.0, 2.5, 0.75, float("inf"), 1.05)
    sample = sampler(inputs=None, targets_template=template)
    return {
        "numbers": numbers,
        "orders": np.asarray(orders),
        "noise": np.asarray(xarray_jax.unwrap_data(noise["a"])),
        "draws": draws,
        "sample": np.asarray(xarray_jax.unwrap_data(sample["a"])),
    }


if __name__ == "__main__":
    np.savez_compressed(FILE, **reference())
