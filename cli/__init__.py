"""The command `emul`: one file a verb."""
