from ._explorer import Explorer as Explorer
from ._explorer import explore as explore
