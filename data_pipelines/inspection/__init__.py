"""Report what data hold: contents, soundness, portraits, predictability."""
