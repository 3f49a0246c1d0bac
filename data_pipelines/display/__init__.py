"""Rows, colours and ticks shared by terminal, pictures and pages."""
