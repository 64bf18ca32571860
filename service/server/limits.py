"""Share among the connections of one process what none of them may take for itself."""

from dataclasses import dataclass, field

from service.server.flow_control import Spare
from service.server.refusal_backoff import Cooling


@dataclass(slots=True, kw_only=True)
class ConnectionLimits:
    """What the connections of one process share.

    Attributes:
        cooling: Connections that were refused.
        spare: What is done when there is time.
    """

    cooling: Cooling = field(default_factory=Cooling)
    spare: Spare = field(default_factory=Spare)
