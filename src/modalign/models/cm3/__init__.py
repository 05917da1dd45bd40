"""CM3: calibrated uniformity and spherical Bézier fusion."""
