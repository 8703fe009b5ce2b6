"""Settings of a schedule of the learning rate, for any study that has one."""

import numpy as np

from optsde import schedules
from optsde.study import Group, Numbers, setting
from optsde.types import Schedule


class ScheduleSettings(Group):
    warmup: float = setting(0.0, "length of the warm-up", at_least=0)
    exponential: bool = setting(False, "warm up geometrically from lr/1000")
    milestones: Numbers = setting(
        (), "times at which lr falls to .1", above=0, rising=True
    )
    cosine: float = setting(0.0, "time at which half a cosine ends", at_least=0)

    def demands(self):
        yield from super().demands()
        fine = not (self.cosine and self.milestones)
        yield fine, "cosine", "0 where there are milestones"

    def within(self, horizon: float):
        """Yields the demands that all of it happens before the end of a run."""
        allowed = f"times before the horizon, {horizon:g}"
        for name in ("warmup", "milestones"):
            last = np.max(getattr(self, name), initial=0)
            yield last < horizon, f"schedule.{name}", allowed

    def build(self) -> Schedule:
        """Returns the multiplier of lr; milestones are times of the whole run."""
        schedule = schedules.constant()
        if self.cosine:
            schedule = schedules.cosine(self.cosine)
        elif self.milestones:
            times = [time - self.warmup for time in self.milestones]
            schedule = schedules.milestones(times)
        if not self.warmup:
            return schedule
        ramp = schedules.exponential_warmup if self.exponential else schedules.warmup
        return ramp(self.warmup, after=schedule)
