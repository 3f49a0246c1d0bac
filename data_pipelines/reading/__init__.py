"""Read fields from disk into memory: chunks, decoding, packed stores."""
