from ._argument import Argument as Argument
from ._co_occurrence import co_occurrence as co_occurrence
from ._co_perturbation import co_perturbation as co_perturbation
from ._continuity import continuity as continuity
from ._direct_ablation import direct_ablation as direct_ablation
from ._generality import generality as generality
from ._mechanism import mechanism as mechanism
from ._six_arguments import six_arguments as six_arguments
