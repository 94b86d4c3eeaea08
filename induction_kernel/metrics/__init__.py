"""What is measured on logits: the metrics, how one of your own is written, and losses by position.

`_metric` is what a metric is, `_standard` those of the package. It edits nothing:
see `interventions`.
"""

from ._by_position import icl_score as icl_score
from ._by_position import loss_by_position as loss_by_position
from ._by_position import token_losses as token_losses
from ._metric import Metric as Metric
from ._metric import MetricLike as MetricLike
from ._metric import Reading as Reading
from ._metric import as_metric as as_metric
from ._metric import measured as measured
from ._metric import one_a_prompt as one_a_prompt
from ._metric import part_of as part_of
from ._metric import read_off as read_off
from ._metric import reading_of as reading_of
from ._standard import kl_to as kl_to
from ._standard import label_accuracy as label_accuracy
from ._standard import logit_difference as logit_difference
from ._standard import loss as loss
from ._standard import probability as probability
from ._standard import repeat_loss as repeat_loss
