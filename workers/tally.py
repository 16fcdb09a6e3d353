"""Loss and speed since the last point of the curves."""

from __future__ import annotations

import time

from api_schemas.dynamics import values_at
from workers.replica import Replica


class Tally:
    """Adds up steps, and makes a point of them. All members add the same, whoever reports it."""

    def __init__(self, samples: int = 0, loss: float = 0.0) -> None:
        self._samples = samples
        self._loss = loss  # summed over samples
        self._since = time.monotonic()

    def add(self, samples: int, mean_loss: float) -> None:
        """A step's samples and their mean loss."""
        self._samples += samples
        self._loss += samples * mean_loss

    def to_dict(self) -> dict[str, float]:
        """The arguments of a copy on another worker."""
        return {"samples": self._samples, "loss": self._loss}

    def point(self, replica: Replica) -> dict[str, float]:
        """Values of the curves at the replica's sample; the next point starts here."""
        values = values_at(replica.spec, replica.size, replica.samples, replica.horizon)
        names = [name for name in ("lr", "ema_momentum") if name in values]
        size = replica.size
        curve = {"loss": self._loss / max(1, self._samples), "samples_per_s": self._rate()}
        curve |= {"kappa": size.kappa, "workers": size.workers, "batch": size.batch}
        curve |= {name: values[name] for name in names}
        if noise := replica.noise.scale(replica.spec.batch.base):
            curve |= {"noise_fraction": noise.noise_fraction, "noise_scale": noise.noise_batch}
        self._samples, self._loss, self._since = 0, 0.0, time.monotonic()
        return curve

    def _rate(self) -> float:
        return self._samples / max(1e-9, time.monotonic() - self._since)
