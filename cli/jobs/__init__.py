"""Processes, threads, shares of work and SLURM jobs."""
