"""The subcommands of `emul data`, one file each."""
