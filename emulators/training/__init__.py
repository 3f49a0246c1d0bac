"""The LightningModule and all that it needs."""
