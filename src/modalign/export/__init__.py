"""From a trained run to the folder that is served: the side that has torch."""
