"""Write packed stores, made for fast reading."""
