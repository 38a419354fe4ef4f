"""Networks that turn a Landsat-8 image and its panchromatic band into Sentinel-2 reflectance."""
