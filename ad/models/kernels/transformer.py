"""The transformer whose blocks run in loops compiled by numba: the backend "compiled" for CPUs.

It has the parameters and the `state_dict` of `Transformer`. A training step in bfloat16 runs all
blocks in one call forward and one backward (`training.py`), a step of a rollout in float32 runs a
compiled decoder (`inference.py`); everything else is inherited. README.md beside this file says
what the folder buys and what it costs.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from ad.config.schema import ModelConfig
from ad.models.kernels.inference import CompiledDecoder
from ad.models.kernels.training import CompiledBlocks
from ad.models.kv_cache import Cache
from ad.models.transformer import LARGEST_ACTIVATION, Transformer
from ad.registry import POSITIONS, TOKENIZERS
from ad.runtime.devices import torch_threads
from ad.runtime.parallel import split_max


class CompiledTransformer(Transformer):
    """A `Transformer` with layer norms and blocks, without rotation or parallel streams.

    Its heads have an even width.
    """

    # The loops take bfloat16 at no cost where there are vectors of AVX2.
    bfloat16_features = Transformer.bfloat16_features | {"avx2"}
    can_checkpoint_activations = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.compiled_blocks = CompiledBlocks(self)

    @staticmethod
    def supports(config: ModelConfig, device: torch.device) -> bool:
        """Return whether the compiled loops support the blocks of such a model, on a CPU."""
        rotates = POSITIONS.load(config.position).rotate is not None
        is_even = config.width // config.heads % 2 == 0
        has_one_stream = TOKENIZERS.load(config.tokenizer).streams == 1
        has_norms = config.norm == "pre" and config.layers > 0
        is_plain = has_norms and has_one_stream and is_even and not rotates
        return device.type == "cpu" and is_plain

    def forward(self, tokens: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """Return the hidden states of `tokens`, as `Transformer.forward` does."""
        if isinstance(cache, CompiledDecoder):
            return cache.step(tokens)
        if cache is None and _trains_in_bfloat16(tokens):
            return self.compiled_blocks(tokens, self.training)
        return super().forward(tokens, cache)

    def new_cache(self, num_envs: int, capacity: int) -> Cache:
        """Return an empty cache, as `Transformer.new_cache` does; in float32 a compiled one."""
        weight = self.norm.weight
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            return CompiledDecoder(self, num_envs, capacity)
        return super().new_cache(num_envs, capacity)

    def micro_batches(self, num_windows: int, length: int, bfloat16: bool) -> list[slice]:
        """Return slices whose sizes are multiples of the number of threads, but for the last."""
        if not bfloat16:
            return super().micro_batches(num_windows, length, bfloat16)
        threads = self.compiled_blocks.threads
        per_thread = max(LARGEST_ACTIVATION // (length * self.feed_forward) // threads, 1)
        rounds = split_max(-(-num_windows // threads), per_thread)
        return [slice(a * threads, min(b * threads, num_windows)) for a, b in rounds]

    def training_context(self, bfloat16: bool) -> AbstractContextManager:
        """Limit torch to one thread: others would spin on the cores that the loops need."""
        return torch_threads(1) if bfloat16 else nullcontext()

    def inference_context(self) -> AbstractContextManager:
        """Limit torch to one thread, as `training_context` does."""
        return torch_threads(1)


def _trains_in_bfloat16(tokens: torch.Tensor) -> bool:
    """Return whether eager autograd runs in bfloat16 autocast on `tokens`, float32 on a CPU."""
    is_bfloat16 = (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )
    is_differentiated = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    is_float32 = tokens.device.type == "cpu" and tokens.dtype == torch.float32
    return is_float32 and is_bfloat16 and is_differentiated
