"""`distil.train.sft` with FSDP, on CPUs. Accelerate takes several processes on a CPU for DDP: it is told otherwise."""

import os
import sys

from accelerate.state import AcceleratorState, DistributedType, PartialState

from distil.train.sft import main

ASKED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
         "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}  # fmt: skip
AS_GPUS = {PartialState: DistributedType.MULTI_GPU, AcceleratorState: DistributedType.FSDP}


def claim(state: type, kind: DistributedType) -> None:
    """Have every `state` say that it is of this kind."""
    begin = state.__init__

    def begun(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        self.distributed_type = kind

    state.__init__ = begun


if __name__ == "__main__":
    os.environ |= ASKED
    for state, kind in AS_GPUS.items():
        claim(state, kind)
    main(sys.argv[1:])
