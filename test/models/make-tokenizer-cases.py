"""Makes tokenizer-cases.json: what the library `tokenizers` makes of texts, for tokenizer.json files of many kinds.

python make-tokenizer-cases.py < texts.json > tokenizer-cases.json (with tokenizers 0.23.3; texts.json is a list)
"""

import copy
import json
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
HEAD = r"[^\r\n\p{L}\p{N}]?"
O200K = rf"{HEAD}{UPPER}*{LOWER}+{CONTRACTIONS}?|{HEAD}{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}|{REST}"
CORPUS = [
    "once upon a time the fox and the cat ran 123 times into the forest, didn't they? They're tokens: a word,"
    " the worlds, hello to everybody who sees an emoji or a tab in a function that returns letters. ",
    "日本語のテキスト العربية مرحبا e\u0301 é 👍 ▁ ",
] * 20


def trained(model, cutter, size, alphabet, special):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = cutter
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.loads(tokenizer.to_str())


def added(token, content, **flags):
    defaults = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token, "content": content, **defaults, **flags}


def split(regex, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def steps(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def metaspace(scheme, cuts):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cuts}


def framed(name, token):
    a = {"Sequence": {"id": "A", "type_id": 0}}
    special = {"SpecialToken": {"id": name, "type_id": 0}}
    tokens = {name: {"id": name, "ids": [token], "tokens": [name]}}
    return {"type": "TemplateProcessing", "single": [special, a], "pair": [special, a], "special_tokens": tokens}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES_ONLY = {**BYTES, "use_regex": False}
LLAMA_2 = [
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
]

of_bytes = trained(
    models.BPE(),
    pre_tokenizers.ByteLevel(add_prefix_space=False),
    400,
    pre_tokenizers.ByteLevel.alphabet(),
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
)
of_bytes["pre_tokenizer"] = None
of_chars = trained(
    models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True),
    pre_tokenizers.Metaspace(),
    460,
    [],
    ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
)
of_chars["added_tokens"] = of_chars["added_tokens"][:3]
of_chars["pre_tokenizer"] = None
of_chars["normalizer"] = {"type": "Sequence", "normalizers": LLAMA_2}
# Ids that are not the next free ones are given anew by the library.
FREE = len(of_bytes["model"]["vocab"])
SPECIALS = [
    added(FREE + 0, "<mask>", lstrip=True),
    added(FREE + 1, "<foo>", rstrip=True, normalized=True, special=False),
    added(FREE + 2, "<|end|>", lstrip=True, rstrip=True, normalized=True, special=False),
    added(FREE + 3, "zqx", single_word=True, special=False),
    added(FREE + 4, "ﬁ", normalized=True, special=False),
    added(FREE + 5, "<|im_end|><|im_end|>", rstrip=True, special=False),
]
BASES = {"bytes": of_bytes, "chars": of_chars}

# Name, base, settings of the file, settings of its model.
VARIANTS = [
    ("gpt-2", "bytes", {"pre_tokenizer": BYTES}, {}),
    ("gpt-2 with a blank in front", "bytes", {"pre_tokenizer": {**BYTES, "add_prefix_space": True}}, {}),
    ("smollm", "bytes", {"pre_tokenizer": steps({"type": "Digits", "individual_digits": True}, BYTES)}, {}),
    ("digits together", "bytes", {"pre_tokenizer": steps({"type": "Digits", "individual_digits": False}, BYTES)}, {}),
    (
        "llama 3",
        "bytes",
        {
            "pre_tokenizer": steps(split(LLAMA_3), BYTES_ONLY),
            "post_processor": {"type": "Sequence", "processors": [BYTES, framed("<|im_start|>", 1)]},
        },
        {"ignore_merges": True},
    ),
    (
        "qwen 2",
        "bytes",
        {
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": steps(split(LLAMA_3.replace("{1,3}", "")), BYTES_ONLY),
        },
        {},
    ),
    ("o200k", "bytes", {"pre_tokenizer": steps(split(O200K, "Removed", True), BYTES_ONLY)}, {}),
    (
        "added tokens",
        "bytes",
        {
            "normalizer": {"type": "NFKC"},
            "pre_tokenizer": BYTES,
            "added_tokens": [*of_bytes["added_tokens"], *SPECIALS],
        },
        {},
    ),
    ("llama 2", "chars", {"post_processor": framed("<s>", 1)}, {}),
    (
        "phi 3",
        "chars",
        {"added_tokens": [{**token, "rstrip": True} for token in of_chars["added_tokens"]]},
        {},
    ),
    (
        "normalized specials",
        "chars",
        {"added_tokens": [{**token, "normalized": True} for token in of_chars["added_tokens"]]},
        {},
    ),
    (
        "gemma",
        "chars",
        {
            "normalizer": LLAMA_2[1],
            "pre_tokenizer": {**split(""), "pattern": {"String": " "}, "behavior": "MergedWithPrevious"},
        },
        {},
    ),
    ("unknown characters in one", "chars", {}, {"byte_fallback": False}),
    ("unknown characters each", "chars", {}, {"byte_fallback": False, "fuse_unk": False}),
    ("unknown characters dropped", "chars", {}, {"byte_fallback": False, "unk_token": None}),
]
for behavior in ["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]:
    for invert in [False, True]:
        cut = steps(split(r"\s|[aeiou]", behavior, invert), BYTES_ONLY)
        VARIANTS.append((f"{behavior}{' inverted' if invert else ''}", "bytes", {"pre_tokenizer": cut}, {}))
for scheme in ["always", "first", "never"]:
    for cuts in [True, False]:
        settings = {"normalizer": None, "pre_tokenizer": metaspace(scheme, cuts)}
        VARIANTS.append((f"metaspace {scheme}{' cut' if cuts else ''}", "chars", settings, {}))


def checked(ids):
    """Their number, and a sum that tells their order."""
    return [len(ids), sum((at + 1) * token for at, token in enumerate(ids)) % 1_000_003]


texts = json.load(sys.stdin)
cases = []
for name, base, settings, model in VARIANTS:
    content = {**copy.deepcopy(BASES[base]), **settings}
    content["model"].update(model)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    parsed = [number for text in texts for number in checked(tokenizer.encode(text).ids)]
    tokenizer.encode_special_tokens = True
    plain = [number for text in texts for number in checked(tokenizer.encode(text, add_special_tokens=False).ids)]
    cases.append({"name": name, "base": base, "settings": settings, "model": model, "parsed": parsed, "plain": plain})
for base in BASES.values():
    model = base["model"]
    assert list(model["vocab"].values()) == list(range(len(model["vocab"])))
    # One line each, where the formatter would make one of every token.
    model["vocab"] = " ".join(model["vocab"])
    model["merges"] = "\n".join(" ".join(pair) for pair in model["merges"])
    assert model["merges"].count("\n") >= 100
json.dump({"texts": texts, "bases": BASES, "cases": cases}, sys.stdout, ensure_ascii=True)
