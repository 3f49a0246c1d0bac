"""Differentiable spherical harmonics: transforms, calculus and spectra on latitude-longitude grids."""
