"""What every file of figures is made of."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen; unknown fields are errors, so that a file of another version is not half read."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval: bootstrap, unless a field says otherwise."""
