"""One wrong implementation, or more, of each equation of the five systems."""

from mutants import bandvae, cm3, mmssl, recgoat, tarec
from mutants.mutant import Mutant

SYSTEMS: dict[str, tuple[Mutant, ...]] = {
    "cm3": cm3.MUTANTS,
    "mmssl": mmssl.MUTANTS,
    "recgoat": recgoat.MUTANTS,
    "bandvae": bandvae.MUTANTS,
    "tarec": tarec.MUTANTS,
}
