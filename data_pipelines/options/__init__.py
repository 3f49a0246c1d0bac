"""Options in YAML files: where they lie, what they say, which parts they name, and whom to trust."""
