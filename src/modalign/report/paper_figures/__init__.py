"""Figures of published papers, redrawn from any runs: `modalign figures`.

One function makes one figure, registered by name in `figure.FIGURES`. A new figure is a function
in a module of this folder that `figure` lists (or in another package, through an entry point of
the group `modalign.figures`); files, page, captions and the removal of old files follow from it.
"""
