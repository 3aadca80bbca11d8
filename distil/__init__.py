"""Turn a large reasoning model into a small, fast-thinking one.

Sub-packages are the rooms of CONTRIBUTING.md; each imports only those below it. Importing the package is cheap: no
torch, no transformers.
"""

import warnings

__version__ = "0.1.0"

warnings.filterwarnings("ignore", message="IProgress not found")  # bars are drawn as text where there are no widgets
