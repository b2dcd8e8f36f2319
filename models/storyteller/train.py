#!/usr/bin/env python3
"""Trains the storyteller: byte-level BPE, a small llama, and a GGUF of both.

    python train.py --corpus build/corpus.jsonl --out build --gguf storyteller.gguf

A checkpoint is written next to the tokenizer; --export-only rewrites the GGUF
from it.
"""

import argparse
import json
import math
import pathlib
import random
import re
import time

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
SPECIALS = [UNK, BOS, EOS, PAD]
VOCAB = 1024
CONTEXT = 1024
ROPE_BASE = 10000.0
EPS = 1e-5

# The last user message becomes the opening of a story, so nothing follows it.
# An earlier answer is closed like a finished document of the corpus.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{{ bos_token }}"
    "{% elif message['role'] == 'system' %}{{ '\n\n' }}"
    "{% endif %}{% endfor %}"
)


class Block(nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.heads = heads
        self.attn_norm = nn.RMSNorm(dim, eps=EPS)
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.o = nn.Linear(dim, dim, bias=False)
        self.ffn_norm = nn.RMSNorm(dim, eps=EPS)
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        h = self.attn_norm(x)
        q, k, v = (
            w(h).view(b, t, self.heads, -1).transpose(1, 2) for w in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(rope(q, cos, sin), rope(k, cos, sin), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, d))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def rope(x, cos, sin):
    # Rotates neighbouring pairs, as llama.cpp does for this architecture, so
    # that Q and K need no permutation on export.
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Storyteller(nn.Module):
    def __init__(self, dim, layers, heads, hidden):
        super().__init__()
        self.shape = {"dim": dim, "layers": layers, "heads": heads, "hidden": hidden}
        self.embed = nn.Embedding(VOCAB, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(dim, eps=EPS)
        half = dim // heads // 2
        freq = ROPE_BASE ** (-torch.arange(half).float() / half)
        angle = torch.outer(torch.arange(CONTEXT).float(), freq)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02 if p is self.embed.weight else dim**-0.5 * 0.7)
        for block in self.blocks:
            nn.init.normal_(block.down.weight, std=hidden**-0.5 / math.sqrt(2 * layers))
            # Attention that starts out copying what it looks at, so that even a
            # short training learns to carry a name through a story.
            nn.init.orthogonal_(block.v.weight)
            with torch.no_grad():
                block.o.weight.copy_(block.v.weight.T / math.sqrt(layers))

    def forward(self, ids):
        x = self.embed(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(self.norm(x), self.embed.weight)


def train_tokenizer(docs, path):
    tok = Tokenizer(models.BPE(unk_token=None))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def texts():
        for d in docs:
            yield d["text"][d["skip"] :]
            # A name should be one token at the start of a paragraph, too.
            yield from re.findall("[A-Z][a-z]+", d["text"][d["skip"] :])

    tok.train_from_iterator(texts(), trainer)
    if tok.get_vocab_size() != VOCAB:
        raise SystemExit(f"the tokenizer has {tok.get_vocab_size()} tokens instead of {VOCAB}")
    tok.save(str(path))
    return tok


def encode(docs, tok, rng):
    """Documents as (ids, mask); noise in front of a story is context, not a target."""
    bos, eos = tok.token_to_id(BOS), tok.token_to_id(EOS)
    out = []
    for d in docs:
        text, skip = d["text"], d["skip"]
        cuts = {0, skip, len(text)}
        # A prompt may end anywhere, also inside a word or after a space; some
        # stories are therefore cut where no tokenizer would cut them.
        if rng.random() < 0.3:
            cuts.add(rng.randint(skip + 1, min(skip + 120, len(text) - 1)))
        cuts = sorted(cuts)
        ids, mask = [bos], [0]
        for lo, hi in zip(cuts, cuts[1:]):
            part = tok.encode(text[lo:hi], add_special_tokens=False).ids
            ids += part
            mask += [0 if hi <= skip else 1] * len(part)
        out.append((ids + [eos], mask + [1]))
    return out


def windows(encoded, rng):
    order = list(range(len(encoded)))
    rng.shuffle(order)
    ids, mask = [], []
    for i in order:
        ids += encoded[i][0]
        mask += encoded[i][1]
        if len(ids) > CONTEXT:
            # Every window starts with a story, as every prompt does.
            yield ids[: CONTEXT + 1], mask[: CONTEXT + 1]
            ids, mask = [], []


def stories(encoded, rng, tokens, cut=CONTEXT):
    """Batches of stories of similar length, padded, one story a row.

    With nothing else in sight, a name can only be the name of this story.
    """
    while True:
        some = [(ids[:cut], mask[:cut]) for ids, mask in rng.sample(encoded, 400)]
        some.sort(key=lambda story: len(story[0]))
        batches, row = [], []
        for story in some:
            if (len(row) + 1) * len(story[0]) > tokens:
                batches.append(row)
                row = []
            row.append(story)
        rng.shuffle(batches)
        for rows in batches:
            size = max(len(ids) for ids, _ in rows)
            yield (
                [ids + [SPECIALS.index(PAD)] * (size - len(ids)) for ids, _ in rows],
                [mask + [0] * (size - len(mask)) for _, mask in rows],
            )


def packed(encoded, rng, tokens):
    """Batches of full windows: stories one after another, up to the whole context."""
    while True:
        rows = []
        for item in windows(encoded, rng):
            rows.append(item)
            if len(rows) == max(1, tokens // CONTEXT):
                yield [r[0] for r in rows], [r[1] for r in rows]
                rows = []


def optimizers(model, lr):
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": [model.embed.weight]}, {"params": norms}],
            lr=lr,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    ]


def fit(model, encoded, held, args):
    rng = random.Random(args.seed)
    opts = optimizers(model, args.lr)
    steps = args.opening_steps + args.short_steps + args.long_steps
    openings = stories(encoded, rng, args.tokens, cut=64)
    short, long = stories(encoded, rng, args.tokens), packed(encoded, rng, args.tokens)
    start, seen, average = time.time(), 0, None
    for step in range(1, steps + 1):
        # First only openings, where names are dense; then single stories; at
        # last the whole context, so that it works up to its end.
        if step <= args.opening_steps:
            batches = openings
        else:
            batches = short if step <= steps - args.long_steps else long
        ids, mask = (torch.tensor(part) for part in next(batches))
        mask = mask[:, 1:].bool()
        # Linear decay to zero: the last steps matter most for greedy decoding.
        lr = args.lr * min(1, step / 60) * max(0.01, 1 - max(0, step - 60) / (steps - 60))
        for opt in opts:
            for g in opt.param_groups:
                g["lr"] = lr
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits[mask].float(), ids[:, 1:][mask])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        seen += ids.numel()
        average = loss.item() if average is None else 0.95 * average + 0.05 * loss.item()
        if step % 50 == 0 or step == steps:
            took = time.time() - start
            print(f"step {step} loss {average:.4f} {seen} tokens {took:.0f} s", flush=True)
        if step % 100 == 0 or step == steps:
            print(f"step {step} held-out loss {evaluate(model, held):.4f}", flush=True)
            torch.save({"shape": model.shape, "state": model.state_dict()}, args.out / "model.pt")


@torch.no_grad()
def evaluate(model, held):
    total = count = 0
    for ids, mask in list(windows(held, random.Random(0)))[:8]:
        ids, mask = torch.tensor([ids]), torch.tensor([mask[1:]], dtype=torch.bool)
        logits = model(ids[:, :-1])
        n = int(mask.sum())
        total += F.cross_entropy(logits[mask].float(), ids[:, 1:][mask]).item() * n
        count += n
    return total / count


@torch.no_grad()
def greedy(model, tok, prompt, limit=320):
    ids = [tok.token_to_id(BOS)] + tok.encode(prompt, add_special_tokens=False).ids
    start = len(ids)
    while len(ids) - start < limit and len(ids) < CONTEXT:
        best = int(model(torch.tensor([ids]))[0, -1].argmax())
        if best == tok.token_to_id(EOS):
            break
        ids.append(best)
    return tok.decode(ids[start:])


def export(model, tok, path):
    shape = model.shape
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_name("storyteller")
    w.add_author("taskchart")
    w.add_license("MIT")
    w.add_description("Tells small stories; trained from scratch on a generated corpus")
    w.add_languages(["en"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_vocab_size(VOCAB)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(shape["dim"])
    w.add_block_count(shape["layers"])
    w.add_feed_forward_length(shape["hidden"])
    w.add_head_count(shape["heads"])
    w.add_head_count_kv(shape["heads"])
    w.add_layer_norm_rms_eps(EPS)
    w.add_rope_dimension_count(shape["dim"] // shape["heads"])
    w.add_rope_freq_base(ROPE_BASE)

    bpe = json.loads(tok.to_str())["model"]
    tokens = [t for t, _ in sorted(bpe["vocab"].items(), key=lambda kv: kv[1])]
    types = [gguf.TokenType.CONTROL if t in SPECIALS else gguf.TokenType.NORMAL for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(tok.token_to_id(BOS))
    w.add_eos_token_id(tok.token_to_id(EOS))
    w.add_unk_token_id(tok.token_to_id(UNK))
    w.add_pad_token_id(tok.token_to_id(PAD))
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)

    def put(name, tensor):
        kind = np.float16 if tensor.dim() > 1 else np.float32
        w.add_tensor(name, tensor.detach().float().numpy().astype(kind))

    # llama.cpp uses the embedding for the output when output.weight is absent.
    put("token_embd.weight", model.embed.weight)
    put("output_norm.weight", model.norm.weight)
    for i, b in enumerate(model.blocks):
        for name, part in (
            ("attn_norm", b.attn_norm),
            ("attn_q", b.q),
            ("attn_k", b.k),
            ("attn_v", b.v),
            ("attn_output", b.o),
            ("ffn_norm", b.ffn_norm),
            ("ffn_gate", b.gate),
            ("ffn_up", b.up),
            ("ffn_down", b.down),
        ):
            put(f"blk.{i}.{name}.weight", part.weight)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--corpus", type=pathlib.Path, default="build/corpus.jsonl")
    p.add_argument("--out", type=pathlib.Path, default="build")
    p.add_argument("--gguf", type=pathlib.Path, default="storyteller.gguf")
    p.add_argument("--dim", type=int, default=128)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--hidden", type=int, default=384)
    p.add_argument("--tokens", type=int, default=1600, help="tokens per step")
    p.add_argument("--opening-steps", type=int, default=400)
    p.add_argument("--short-steps", type=int, default=2200)
    p.add_argument("--long-steps", type=int, default=400)
    p.add_argument("--lr", type=float, default=4e-3)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--export-only", action="store_true")
    p.add_argument("--greedy", type=pathlib.Path, help="write greedy continuations of the held-out prompts here")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    if args.export_only:
        tok = Tokenizer.from_file(str(args.out / "tokenizer.json"))
        saved = torch.load(args.out / "model.pt")
        model = Storyteller(**saved["shape"])
        model.load_state_dict(saved["state"])
    else:
        docs = [json.loads(line) for line in open(args.corpus, encoding="utf-8")]
        tok = train_tokenizer(docs, args.out / "tokenizer.json")
        encoded = encode(docs, tok, random.Random(args.seed))
        held, encoded = encoded[:400], encoded[400:]
        print(f"{len(encoded)} stories, {sum(len(e[0]) for e in encoded)} tokens", flush=True)
        model = Storyteller(args.dim, args.layers, args.heads, args.hidden)
        print(f"{sum(q.numel() for q in model.parameters())} parameters", flush=True)
        fit(model, encoded, held, args)

    export(model, tok, args.gguf)
    print(f"{args.gguf}: {args.gguf.stat().st_size} bytes")
    if args.greedy:
        prompts = json.load(open(pathlib.Path(__file__).parent / "held-out.json", encoding="utf-8"))
        told = [{"prompt": q["prompt"], "text": greedy(model, tok, q["prompt"])} for q in prompts]
        args.greedy.write_text(json.dumps(told, indent=2, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
