"""Which tensors stand before, in, after and beside the blocks of real architectures."""

import copy
import inspect

import pytest
import torch
import torch.distributed as dist
import transformers
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    checkpoint_wrapper,
)
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from attest.errors import TrainingError
from attest.training.layout import LayoutError, read_layout
from attest.training.mechanism import named_parameters

VOCABULARY = 32
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OLDER = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
MIXTURE = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
LATENT = {
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 8,
    "num_key_value_heads": 2,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}

EMBEDDING, NORM, HEAD = (
    "model.embed_tokens.weight",
    "model.norm.weight",
    "lm_head.weight",
)
UNTIED = {"stem": {EMBEDDING}, "head": {NORM, HEAD}}
TIED = {"tied": {EMBEDDING}, "head": {NORM}}


def both(module):
    return {f"{module}.weight", f"{module}.bias"}


# Configuration, what differs from TINY, path of the blocks, all tensors outside them.
ARCHITECTURES = {
    "llama": ("LlamaConfig", {}, "model.layers", UNTIED),
    "llama-tied": (
        "LlamaConfig",
        {"tie_word_embeddings": True},
        "model.layers",
        TIED,
    ),
    "mistral": ("MistralConfig", {}, "model.layers", UNTIED),
    "qwen2": ("Qwen2Config", {}, "model.layers", UNTIED),
    "qwen3": ("Qwen3Config", {}, "model.layers", UNTIED),
    "gemma2": ("Gemma2Config", {}, "model.layers", TIED),
    "gemma3": ("Gemma3TextConfig", {}, "model.layers", TIED),
    "phi3": ("Phi3Config", {}, "model.layers", UNTIED),
    "olmo2": ("Olmo2Config", {}, "model.layers", UNTIED),
    "gpt2": (
        "GPT2Config",
        OLDER,
        "transformer.h",
        {
            "tied": {"transformer.wte.weight"},
            "stem": {"transformer.wpe.weight"},
            "head": both("transformer.ln_f"),
        },
    ),
    "gpt-neox": (
        "GPTNeoXConfig",
        {},
        "gpt_neox.layers",
        {
            "stem": {"gpt_neox.embed_in.weight"},
            "head": {*both("gpt_neox.final_layer_norm"), HEAD},
        },
    ),
    # Its final norm is declared before its blocks.
    "opt": (
        "OPTConfig",
        {"ffn_dim": 24, "word_embed_proj_dim": 16},
        "model.decoder.layers",
        {
            "tied": {"model.decoder.embed_tokens.weight"},
            "stem": {"model.decoder.embed_positions.weight"},
            "head": both("model.decoder.final_layer_norm"),
        },
    ),
    "bloom": (
        "BloomConfig",
        {"n_layer": 2, "n_head": 2},
        "transformer.h",
        {
            "tied": {"transformer.word_embeddings.weight"},
            "stem": both("transformer.word_embeddings_layernorm"),
            "head": both("transformer.ln_f"),
        },
    ),
    "falcon": (
        "FalconConfig",
        {},
        "transformer.h",
        {
            "tied": {"transformer.word_embeddings.weight"},
            "head": both("transformer.ln_f"),
        },
    ),
    "mixtral": ("MixtralConfig", {"num_local_experts": 2}, "model.layers", UNTIED),
    "qwen3-moe": ("Qwen3MoeConfig", MIXTURE, "model.layers", UNTIED),
    "deepseek-v3": ("DeepseekV3Config", LATENT, "model.layers", UNTIED),
    "mamba": (
        "MambaConfig",
        {"state_size": 4},
        "backbone.layers",
        {"tied": {"backbone.embeddings.weight"}, "head": {"backbone.norm_f.weight"}},
    ),
    "smollm3": ("SmolLM3Config", {}, "model.layers", TIED),
}


def configuration(kind, more):
    kind = getattr(transformers, kind)
    known = inspect.signature(kind).parameters
    return kind(**{k: v for k, v in TINY.items() if k in known} | more)


def build(config, device="cpu", **options):
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, **options)


def llama(**more):
    return build(configuration("LlamaConfig", more))


def outside(layout):
    found = {}
    for name, unit in layout.units.items():
        if not unit.startswith("L"):
            found.setdefault(unit, set()).add(name)
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name):
    kind, more, blocks, expected = ARCHITECTURES[name]
    config = configuration(kind, more)
    model = build(config)
    layout = read_layout(model)
    assert (layout.blocks, layout.count) == (blocks, 2)
    assert layout.architecture == type(model).__name__
    assert layout.units.keys() == dict(model.named_parameters()).keys()
    assert outside(layout) == expected
    for tensor, unit in layout.units.items():
        if unit.startswith("L"):
            assert tensor.startswith(f"{blocks}.{int(unit[1:])}.")
    # Without weights it is the same layout.
    assert read_layout(build(config, "meta", dtype=torch.bfloat16)) == layout


def test_encoder_decoder_is_refused():
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2
    )
    with pytest.raises(LayoutError, match="found an encoder-decoder") as caught:
        read_layout(transformers.T5ForConditionalGeneration(config))
    assert "decoder-only" in caught.value.hint


@pytest.mark.parametrize("tower_layers", [1, 8], ids=["small", "larger than the text"])
def test_tower_of_a_vision_language_model_stands_aside(tower_layers):
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=tower_layers,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        projection_dim=16,
    )
    text = configuration("LlamaConfig", {})
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=VOCABULARY - 1
    )
    layout = read_layout(transformers.LlavaForConditionalGeneration(config))
    assert layout.blocks == "model.language_model.layers"
    found = outside(layout)
    assert found["stem"] == {"model.language_model.embed_tokens.weight"}
    assert found["head"] == {"model.language_model.norm.weight", "lm_head.weight"}
    aside = {name.split(".")[1] for name in found["aside"]}
    assert aside == {"vision_tower", "multi_modal_projector"}


# --- models of one's own ---------------------------------------------------------


class Plain(nn.Module):
    """Blocks with everything that names and order of declaration would get wrong."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))  # used last
        self.norm = nn.LayerNorm(8)  # used last
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.position = nn.Parameter(torch.zeros(4, 8))  # used first
        self.embed = nn.Embedding(4, 8)
        self.between = nn.Linear(8, 8)
        self.spare = nn.Linear(8, 8)  # never used
        self.dropout = nn.Dropout(0.5)

    def forward(self, ids):
        state = self.dropout(self.embed(ids) + self.position)
        for number, block in enumerate(self.blocks):
            state = block(state)
            if number == 1:
                state = self.between(state)
        return self.norm(state) * self.scale


def test_order_of_use_decides():
    assert outside(read_layout(Plain())) == {
        "stem": {"position", "embed.weight"},
        "head": {"scale", "norm.weight", "norm.bias"},
        "tied": {"between.weight", "between.bias"},
        "aside": {"spare.weight", "spare.bias"},
    }


def test_embedding_used_as_head_without_a_second_name_is_tied():
    class Reused(Plain):
        def forward(self, ids):
            return functional.linear(super().forward(ids), self.embed.weight)

    assert read_layout(Reused()).units["embed.weight"] == "tied"


def test_head_module_that_holds_the_embedding_is_tied():
    class Tied(Plain):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 4, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(super().forward(ids))

    assert read_layout(Tied()).units["embed.weight"] == "tied"


def test_alias_that_is_not_used_ties_nothing():
    model = Plain()
    model.alias = model.norm
    assert outside(read_layout(model))["head"] == {"scale", "norm.weight", "norm.bias"}


def test_block_that_stands_twice_is_tied():
    model = Plain()
    model.blocks[2] = model.blocks[0]
    units = read_layout(model).units
    assert units["blocks.0.weight"] == units["blocks.0.bias"] == "tied"
    assert units["blocks.1.weight"] == "L01"


def test_weight_that_two_blocks_share_is_tied():
    model = Plain()
    model.blocks[2].weight = model.blocks[0].weight
    units = read_layout(model).units
    assert units["blocks.0.weight"] == "tied"
    assert (units["blocks.0.bias"], units["blocks.2.bias"]) == ("L00", "L02")


def test_second_path_of_the_blocks_changes_nothing():
    model = Plain()
    plain = read_layout(model)
    model.layers = model.blocks
    assert read_layout(model) == plain


def test_weight_that_a_block_shares_with_the_rest_is_tied():
    model = Plain()
    model.spare.weight = model.blocks[1].weight
    units = read_layout(model).units
    assert (units["blocks.1.weight"], units["blocks.1.bias"]) == ("tied", "L01")


def test_tensors_that_only_a_kernel_sees_are_placed_by_their_modules_call():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, state):
            # No operation gets the parameter itself.
            return state * torch.tensor(self.weight.tolist())

    model = Plain()
    model.norm = Fused()
    assert outside(read_layout(model))["head"] == {"scale", "norm.weight"}


def test_a_model_without_blocks_is_refused():
    with pytest.raises(LayoutError, match="found none") as caught:
        read_layout(nn.Linear(2, 2))
    assert "ModuleList" in caught.value.hint


def test_two_stacks_are_refused():
    class Two(Plain):
        def __init__(self):
            super().__init__()
            self.more = nn.ModuleList([nn.Linear(8, 8)])

        def forward(self, ids):
            return self.more[0](super().forward(ids))

    with pytest.raises(LayoutError, match="found blocks and more"):
        read_layout(Two())


def test_a_model_that_takes_no_token_ids_is_refused():
    class Images(Plain):
        def forward(self, pixels):
            return functional.conv2d(pixels, self.spare.weight)

    with pytest.raises(LayoutError, match="forward on four token ids failed") as caught:
        read_layout(Images())
    assert "input_ids" in caught.value.hint


def test_a_forward_without_its_blocks_is_refused():
    class Empty(Plain):
        def forward(self, ids):
            return self.embed(ids)

    with pytest.raises(LayoutError, match="no list of blocks takes part"):
        read_layout(Empty())


def test_reading_leaves_no_trace():
    model = Plain()
    model.blocks[1].eval()
    model.embed.weight.requires_grad_(False)
    hook = model.norm.register_forward_pre_hook(lambda *_: None)
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    read_layout(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert list(model.norm._forward_pre_hooks) == [hook.id]
    assert not any(m._forward_pre_hooks for m in model.modules() if m is not model.norm)
    assert all(p.grad is None for p in model.parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
        "embed.weight"
    ]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_failed_reading_leaves_no_trace():
    model = Plain()
    model.spare = nn.Linear(8, 8)
    model.norm = nn.LayerNorm(3)  # fails at the very end
    with pytest.raises(LayoutError):
        read_layout(model)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


# --- adapters and wrappers ---------------------------------------------------------


def adapted(model, **more):
    config = {"r": 2, "target_modules": "all-linear", **more}
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))


def test_adapters_land_in_their_layer_and_the_base_is_frozen():
    model = llama()
    base = read_layout(model)
    layout = read_layout(adapted(model))
    assert layout.architecture == base.architecture
    assert layout.blocks == "model.layers"
    trained = set(layout.units) - layout.frozen
    assert trained
    for name in trained:
        number = int(name.removeprefix("model.layers.").partition(".")[0])
        assert layout.units[name] == f"L{number:02d}"
        assert ".lora_" in name
    frozen = {name.replace(".base_layer", "") for name in layout.frozen}
    assert frozen == set(base.units)


def test_adapters_outside_the_blocks():
    model = adapted(
        llama(), target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"]
    )
    layout = read_layout(model)
    trained = {u: n - layout.frozen for u, n in outside(layout).items()}
    assert {name.rpartition(".")[0] for name in trained["stem"]} == {
        "model.embed_tokens.lora_embedding_A",
        "model.embed_tokens.lora_embedding_B",
    }
    assert trained["head"] == {"lm_head.modules_to_save.default.weight"}


def test_prompt_tuning_is_refused():
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(LayoutError, match="belongs to no layer") as caught:
        read_layout(get_peft_model(llama(), config))
    assert "LoRA" in caught.value.hint


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_wrappers_do_not_count():
    model = llama()
    plain = read_layout(model)
    wrapped = DistributedDataParallel(torch.compile(model, backend="eager"))
    assert read_layout(wrapped) == plain
    assert named_parameters(wrapped).keys() == plain.units.keys()
    model.model.layers[1] = torch.compile(model.model.layers[1], backend="eager")
    assert read_layout(wrapped) == plain
    assert named_parameters(wrapped).keys() == plain.units.keys()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("tied", [False, True])
def test_shards_of_fsdp2_are_placed_alike(tied):
    model = llama(tie_word_embeddings=tied)
    plain = read_layout(model)
    for block in model.model.layers:
        fully_shard(block)
    fully_shard(model)
    assert read_layout(model) == plain


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:FSDP is switching")
def test_flat_shards_are_refused():
    flat = FullyShardedDataParallel(llama(), device_id=torch.device("cpu"))
    with pytest.raises(TrainingError, match="FSDP1"):
        read_layout(flat)


def test_checkpointed_blocks():
    model = llama()
    plain = read_layout(model)
    model.model.layers[0] = checkpoint_wrapper(model.model.layers[0])
    assert read_layout(model) == plain


def test_wrapped_adapters():
    model = adapted(llama())
    assert read_layout(torch.compile(model, backend="eager")) == read_layout(model)
    assert read_layout(model.get_base_model()) == read_layout(model)
    assert named_parameters(model).keys() == read_layout(model).units.keys()


def test_model_compiled_in_place_runs_without_compiling():
    model = Plain()
    plain = read_layout(model)
    model.compile(backend=lambda *_: pytest.fail("compiled"))
    assert read_layout(model) == plain
