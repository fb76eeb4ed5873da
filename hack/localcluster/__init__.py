"""A real Kubernetes cluster with spot machines on one Linux machine, without Docker.

The names below are the Python API; `python3 -m localcluster` is the same for
people. See docs/local-cluster.md.
"""

from localcluster.cluster import Cluster as Cluster
from localcluster.cluster import take_down as take_down
from localcluster.commands import CommandError as CommandError
from localcluster.commands import LocalClusterError as LocalClusterError
from localcluster.progress import Progress as Progress
from localcluster.reclaim import ReclaimRecord as ReclaimRecord
from localcluster.s3 import S3Access as S3Access
from localcluster.spec import CapacityType as CapacityType
from localcluster.spec import ClusterConfig as ClusterConfig
from localcluster.spec import NodeSpec as NodeSpec
from localcluster.spec import ReclaimStyle as ReclaimStyle
from localcluster.spec import Taint as Taint
