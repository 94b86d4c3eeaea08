from ._behaviours import BEHAVIOURS as BEHAVIOURS
from ._behaviours import Behaviour as Behaviour
from ._census import census as census
from ._passages import passages as passages
from ._tables import beside as beside
from ._tables import table as table
