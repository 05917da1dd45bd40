"""RecGOAT: graph optimal adaptive transport with users' preferences."""
