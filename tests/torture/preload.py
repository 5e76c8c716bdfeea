"""What processes of the torture suite have imported before they are born: all but Lance.

Lance starts threads when it is imported, which a fork would not take along.
"""

import sys

import lance_namespace  # noqa: F401
import lance_namespace_urllib3_client  # noqa: F401
import numpy as np  # noqa: F401
import openslide  # noqa: F401
import pandas  # noqa: F401
import PIL.Image  # noqa: F401
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.linear_model
import sklearn.metrics  # noqa: F401
import timm  # noqa: F401
import torch
import typer  # noqa: F401

torch.set_num_threads(1)
assert not {"lance", "lancedb"} & set(sys.modules)
