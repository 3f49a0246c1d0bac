"""Processes that share work, their threads, and jobs of SLURM."""
