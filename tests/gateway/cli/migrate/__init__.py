"""`pointsman migrate`."""
