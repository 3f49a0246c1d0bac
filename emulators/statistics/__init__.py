"""Statistics over area, time and samples: area means, climatologies, significance."""
