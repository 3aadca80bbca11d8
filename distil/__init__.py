"""Turn a large reasoning model into a small, fast-thinking one.

Sub-packages are the rooms of CONTRIBUTING.md; each imports only those below it. Importing the package is cheap: no
torch, no transformers.
"""

import os
import warnings

__version__ = "0.1.0"

# threads that spin while they wait take the cores from each other and from neighbours; read when torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

warnings.filterwarnings("ignore", message="IProgress not found")  # bars are drawn as text where there are no widgets
