"""How much an optimizer step changed, per unit of the model."""

from collections.abc import Mapping

import torch

from attest.training.confinement import local_of

__all__ = ["Update"]


class Update:
    """Measures the applied change: what rounding swallowed does not count."""

    def __init__(self, units: Mapping[str, str]) -> None:
        """`units` has the unit of every tensor by name."""
        self._units = units
        # Kept between steps: fresh memory for a copy of the band costs more than the
        # copy itself.
        self._old: dict[str, torch.Tensor] = {}

    def before(self, band: Mapping[str, torch.Tensor]) -> None:
        """Remember the tensors that the step may change."""
        for name, tensor in band.items():
            values = local_of(tensor)
            if name not in self._old:
                self._old[name] = torch.empty_like(values)
            self._old[name].copy_(values)

    def energy(self, band: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Sum of squares of the change since `before`, per unit; of this rank's part.

        May be asked once per `before`.
        """
        energy: dict[str, torch.Tensor] = {}
        for name, tensor in band.items():
            unit, now, old = self._units[name], local_of(tensor), self._old[name]
            if old.dtype == torch.float32:
                change = old.sub_(now)
            else:
                change = old.float() - now.float()
            square = torch.linalg.vector_norm(change, dtype=torch.float64).square()
            energy[unit] = energy[unit] + square if unit in energy else square
        return {unit: float(value) for unit, value in energy.items()}
