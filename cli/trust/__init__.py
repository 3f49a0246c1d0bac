"""What a configuration may run and show: parts and folders that are trusted, settings kept on disk, secrets."""
