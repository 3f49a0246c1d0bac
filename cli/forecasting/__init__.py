"""Open and check what `emul forecast` needs: run, data, initial times, writer."""
