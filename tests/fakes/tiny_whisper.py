"""A Whisper small enough to build in a test, real enough for vLLM to serve.

Its weights are random, so what it hears is nonsense, the same for the same recording.
"""

import math
import struct
import wave
from io import BytesIO

import torch
from fakes.tiny_model import byte_alphabet
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

__all__ = ["make_recording", "make_tiny_whisper"]

_END, _START = "<|endoftext|>", "<|startoftranscript|>"
_SPECIAL = (
    *(_END, _START, *(f"<|{code}|>" for code in LANGUAGES)),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
    *("<|nospeech|>", "<|notimestamps|>"),
)
_RATE = 16_000


def make_tiny_whisper(directory, *, seed=0):
    """Write a whole model directory; returns it.

    One token per byte, two layers, 128 tokens of text, the 30 s of sound that all
    Whispers hear. The caller's random state is left as it was.
    """
    vocabulary = {text: i for i, text in enumerate((*byte_alphabet(), *_SPECIAL))}
    tokenizer = WhisperTokenizer(
        vocab=vocabulary, merges=[], additional_special_tokens=list(_SPECIAL[1:])
    )
    ids = {
        "pad_token_id": vocabulary[_END],
        "bos_token_id": vocabulary[_END],
        "eos_token_id": vocabulary[_END],
        "decoder_start_token_id": vocabulary[_START],
    }
    # vLLM's CPU attention knows head sizes from 32 on.
    config = WhisperConfig(
        vocab_size=len(vocabulary),
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_target_positions=128,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **ids,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(config)
    # It says printable ASCII alone, one letter far from the next: rounding decides
    # nothing, and the text is readable.
    with torch.no_grad():
        letters = model.proj_out.weight[33:127].clone()
        model.proj_out.weight.zero_()
        model.proj_out.weight[33:127] = 20 * letters
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(directory)
    WhisperProcessor(
        feature_extractor=WhisperFeatureExtractor(), tokenizer=tokenizer
    ).save_pretrained(directory)
    return directory


def make_recording(*, hertz=440, seconds=1):
    """A tone as the bytes of a WAV file: 16 kHz, one channel, 16 bits."""
    times = (i / _RATE for i in range(_RATE * seconds))
    values = (int(8000 * math.sin(2 * math.pi * hertz * t)) for t in times)
    file = BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(b"".join(struct.pack("<h", value) for value in values))
    return file.getvalue()
