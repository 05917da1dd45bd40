"""The folder that is served: what a trained run becomes on another machine. No torch, no pickle."""
