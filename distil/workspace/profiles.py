"""The profiles of `profiles.yaml`: what a run changes against the notebooks' defaults, and the disk that it wants."""

from __future__ import annotations

from importlib import resources

import yaml

PROFILES: dict[str, dict[str, dict]] = yaml.safe_load(
    (resources.files("distil.workspace") / "profiles.yaml").read_text(encoding="utf-8")
)
DISK_GB: dict[str, float] = {name: sections.pop("disk_gb") for name, sections in PROFILES.items()}
