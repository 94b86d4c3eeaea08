"""Every result about heads goes into every function that takes one, and what is refused says what to do."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hand_model import LAG, hand_model
from verbs import episodes, noisy_mask
from zoo import tiny

import induction_kernel as ik
from induction_kernel.errors import Refused
from induction_kernel.plots.figures import score_plot
from induction_kernel.plots.offline import figure_fragment
