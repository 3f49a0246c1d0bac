"""From one State to the next: normalise, network, add, constrain."""
