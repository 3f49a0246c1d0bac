"""Small simulated worlds and the stores made of them."""
