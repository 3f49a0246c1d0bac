"""Scaling laws of networks: forms and fits, annealing of the learning rate, studies as a rule, transfer over width."""
