"""What every model may rely on: protocols, views of the data, seeds, devices, settings."""
