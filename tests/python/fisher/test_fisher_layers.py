"""merganser.fisher on torch's layers, against a float64 loop over single examples."""

import warnings

import merganser
import pytest
import torch
from fisher_oracle import assert_fishers_close, define_fisher
from torch import nn
from torch.nn import functional

COUNT, LENGTH, WIDTH = 6, 5, 4


class Body(nn.Module):
    """A layer, and a head on the mean over all but the batch and the channels."""

    def __init__(self, layer, inputs, channels=1):
        super().__init__()
        self.layer = layer
        self.inputs = inputs
        self.channels = channels
        with torch.no_grad():
            shape = self.features(inputs[:2]).shape
        self.head = nn.Linear(shape[-1], 3)

    def features(self, x):
        y = self.layer(x)
        y = y[0] if isinstance(y, tuple) else y
        y = y.tanh()
        if y.dim() > 2:
            places = [d for d in range(1, y.dim()) if d != self.channels % y.dim()]
            y = (y * y.cos()).mean(places)
        return y

    def forward(self, x):
        return self.head(self.features(x))


class Attention(nn.Module):
    """nn.MultiheadAttention from x to x, or to other tokens computed from x."""

    def __init__(self, cross=False, first=True, mask=False, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(
            WIDTH, 2, batch_first=first, dropout=0.2, **options
        )
        self.cross, self.first, self.mask = cross, first, mask
        self.weights = not cross
        nn.init.normal_(self.attention.in_proj_weight)

    def forward(self, x):
        other = torch.cat([x.sin(), x[:, :2]], 1) if self.cross else x
        mask = x[..., 0] > 1.5 if self.mask else None
        values = other.cos() if self.cross == "values" else other
        if not self.first:
            x, other, values = (y.transpose(0, 1) for y in (x, other, values))
        y, _ = self.attention(
            x, other, values, key_padding_mask=mask, need_weights=self.weights
        )
        return y if self.first else y.transpose(0, 1)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(WIDTH, 2, 6, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 1)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=x.dtype)
        return self.decoder(x[:, :3], x.sin(), tgt_mask=mask)


class Padded(nn.Module):
    """A TransformerEncoder with padding, which may use a fast path."""

    def __init__(self, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 6, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x):
        mask = x[..., 0] > 1.5
        y = self.encoder(x, src_key_padding_mask=mask)
        return y.masked_fill(mask[..., None], 0)


class Twice(nn.Module):
    """A layer of two inputs."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x.sin())


def batch_norm(dimensions):
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dimensions]
    norm = kind(WIDTH)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.Sequential(norm, nn.Tanh())


TEXTS = (COUNT, LENGTH, WIDTH)
SEQUENCES = (COUNT, WIDTH, 9)
IMAGES = (COUNT, WIDTH, 9, 8)
VOLUMES = (COUNT, 2, 5, 4, 6)
TOKENS = "tokens"
# Layer, shape of its inputs, dimension of the channels, whether it lacks a rule.
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, 1), SEQUENCES, 1, False),
    "conv1d dilated": (lambda: nn.Conv1d(4, 6, 3, dilation=2), SEQUENCES, 1, False),
    "conv1d groups": (lambda: nn.Conv1d(4, 6, 3, groups=2), SEQUENCES, 1, False),
    "conv1d long stride": (lambda: nn.Conv1d(4, 6, 2, 4), SEQUENCES, 1, False),
    "conv2d": (lambda: nn.Conv2d(4, 5, (3, 2), (2, 1), (0, 1)), IMAGES, 1, False),
    "conv2d all": (
        lambda: nn.Conv2d(4, 6, (2, 3), (1, 2), (2, 1), (2, 1), 2, bias=False),
        IMAGES,
        1,
        False,
    ),
    "conv2d depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), IMAGES, 1, False),
    "conv2d 1x1": (lambda: nn.Conv2d(4, 5, 1), IMAGES, 1, False),
    "conv2d reflect": (
        lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"),
        IMAGES,
        1,
        False,
    ),
    "conv2d same": (lambda: nn.Conv2d(4, 5, 3, padding="same"), IMAGES, 1, True),
    "conv2d valid": (lambda: nn.Conv2d(4, 5, 3, padding="valid"), IMAGES, 1, True),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2, (1, 2, 3), 1, groups=2), VOLUMES, 1, False),
    "conv transposed": (lambda: nn.ConvTranspose2d(4, 5, 3), IMAGES, 1, True),
    "batch norm": (lambda: batch_norm(1), (COUNT, WIDTH), 1, False),
    "batch norm 1d": (lambda: batch_norm(1), SEQUENCES, 1, False),
    "batch norm 2d": (lambda: batch_norm(2), IMAGES, 1, False),
    "group norm": (lambda: nn.GroupNorm(2, 4), IMAGES, 1, False),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), IMAGES, 1, True),
    "layer norm": (lambda: nn.LayerNorm(WIDTH), TEXTS, -1, False),
    "layer norm 2": (lambda: nn.LayerNorm((LENGTH, WIDTH)), TEXTS, -1, False),
    "layer norm no bias": (lambda: nn.LayerNorm(WIDTH, bias=False), TEXTS, -1, False),
    "rms norm": (lambda: nn.RMSNorm(WIDTH), TEXTS, -1, False),
    "rms norm 2": (lambda: nn.RMSNorm((LENGTH, WIDTH), eps=0.1), TEXTS, -1, False),
    "prelu": (lambda: nn.PReLU(4), IMAGES, 1, True),
    "linear": (lambda: nn.Linear(WIDTH, 5), (COUNT, 3, 2, WIDTH), -1, False),
    "linear of vectors": (lambda: nn.Linear(WIDTH, 5), (COUNT, WIDTH), -1, False),
    "bilinear": (lambda: Twice(nn.Bilinear(4, 4, 5)), TEXTS, -1, True),
    "lstm": (lambda: nn.LSTM(4, 3, 2, batch_first=True), TEXTS, -1, True),
    "gru": (
        lambda: nn.GRU(4, 3, batch_first=True, bidirectional=True),
        TEXTS,
        -1,
        True,
    ),
    "embedding": (lambda: nn.Embedding(9, 4, padding_idx=-2), TOKENS, -1, False),
    "embedding sparse": (lambda: nn.Embedding(9, 4, sparse=True), TOKENS, -1, False),
    "embedding by frequency": (
        lambda: nn.Embedding(9, 4, scale_grad_by_freq=True),
        TOKENS,
        -1,
        True,
    ),
    "embedding bag": (lambda: nn.EmbeddingBag(9, 4), TOKENS, -1, True),
    "attention": (Attention, TEXTS, -1, False),
    "attention, mask": (lambda: Attention(mask=True), TEXTS, -1, False),
    "attention, sequence first": (lambda: Attention(first=False), TEXTS, -1, False),
    "attention, cross": (lambda: Attention(cross=True), TEXTS, -1, False),
    "attention, three": (lambda: Attention(cross="values"), TEXTS, -1, False),
    "attention, cross, sequence first": (
        lambda: Attention(cross=True, first=False),
        TEXTS,
        -1,
        False,
    ),
    "attention, no bias": (lambda: Attention(bias=False), TEXTS, -1, False),
    "attention, bias_kv": (lambda: Attention(add_bias_kv=True), TEXTS, -1, True),
    "encoder": (Padded, TEXTS, -1, False),
    "encoder, norm first": (lambda: Padded(norm_first=True), TEXTS, -1, False),
    "decoder": (Decoder, TEXTS, -1, False),
}


def make(name):
    torch.manual_seed(6)
    layer, shape, channels, without_rule = LAYERS[name]
    inputs = (
        torch.randint(0, 9, (COUNT, LENGTH)) if shape is TOKENS else torch.randn(shape)
    )
    layer = layer().eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return Body(layer, inputs, channels).eval(), inputs, without_rule


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    model, inputs, without_rule = make(name)
    expected = define_fisher(model, inputs.split(1), lambda i, p: p)
    for sizes in (4, 1, COUNT):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = merganser.fisher(model, inputs.split(sizes))
        said = " ".join(str(w.message) for w in caught)
        assert ("layer." in said) == without_rule, said
        assert "head" not in said
        assert_fishers_close(result, expected)
    if without_rule:
        with pytest.raises(NotImplementedError, match=r"no rule .*layer\."):
            merganser.fisher(model, [inputs], unsupported="error")


@pytest.mark.parametrize("name", LAYERS)
def test_mc_batch_takes_any_layer(name):
    """In batches of one, it equals mc."""
    model, inputs, _ = make(name)
    result = merganser.fisher(model, inputs.split(1), "mc_batch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no rule gives")
        expected = merganser.fisher(model, inputs.split(4), "mc")
    assert_fishers_close(result, expected)


class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, 3)
        self.register_buffer("scale", torch.tensor([1.0, 2, 3]))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        return functional.linear(x, self.layer.weight * 1, self.layer.bias) * self.scale


def test_buffers():
    model, inputs = Buffers(), torch.randn(COUNT, WIDTH)
    expected = define_fisher(model, inputs.split(1), lambda i, p: p)
    with pytest.warns(UserWarning, match=r"layer\.weight"):
        result = merganser.fisher(model, [inputs])
    assert_fishers_close(result, expected)
    assert set(result) == {"layer.weight", "layer.bias"}


def test_batch_norm_that_has_no_statistics():
    """Raises: a single example has nothing to normalize by."""
    model = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            merganser.fisher(model, [torch.randn(COUNT, WIDTH)])


@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
def test_channels_last(estimator):
    model, inputs, _ = make("conv2d all")
    expected = merganser.fisher(model, inputs.split(4), estimator)
    model = model.to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no rule gives")
        result = merganser.fisher(model, inputs.split(4), estimator)
    assert_fishers_close(result, expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
def test_compiled(backend, estimator):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    inputs = torch.randn(COUNT, WIDTH)
    expected = merganser.fisher(model, inputs.split(4), estimator)
    compiled = torch.compile(model, backend=backend)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no rule gives")
        result = merganser.fisher(compiled, inputs.split(4), estimator)
    assert_fishers_close(
        {name.removeprefix("_orig_mod."): f for name, f in result.items()}, expected
    )


class PaddedMean(nn.Module):
    """Classifies the mean over all places, padded ones included: the fused attention
    of an evaluation without gradients has other outputs there."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        x = self.encoder(self.table(ids), src_key_padding_mask=ids == 0)
        return self.head(x.mean(1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("frozen", [False, True])
def test_padding_of_torch_encoders(frozen):
    model = PaddedMean()
    ids = torch.randint(1, 20, (5, 4))
    ids[1, 2:] = 0
    ids[3, 1:] = 0
    expected = define_fisher(model, ids.split(1), lambda i, p: p)
    if frozen:  # then no gradient is needed in the encoder
        model.table.requires_grad_(False)
        model.encoder.requires_grad_(False)
        expected = {name: f for name, f in expected.items() if "head" in name}
    result = merganser.fisher(model, [ids], unsupported="error")
    assert_fishers_close(result, expected)
    assert torch.backends.mha.get_fastpath_enabled()
    inputs = []
    handle = model.head.register_forward_pre_hook(lambda _, args: inputs.append(*args))
    model.eval()(ids)  # with gradients
    handle.remove()
    if not frozen:
        grams = merganser.gram(model, [ids])
        expected = inputs[0].T @ inputs[0] / 5
        torch.testing.assert_close(grams["head.weight"], expected.detach())
