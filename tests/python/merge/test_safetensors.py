"""Merganser's files in the safetensors package, and vice versa."""

import ctypes
import random
import re
import struct

import pytest
import safetensors
import safetensors.torch
import torch
import transformers
from merganser import _C, InputError

# Names in the format, bits per element, and names in the package (None: it reads the
# dtype but does not write it).
DTYPES = {
    "BOOL": (8, "bool"),
    "F4": (4, "float4_e2m1fn_x2"),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "U8": (8, "uint8"),
    "I8": (8, "int8"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E8M0": (8, "float8_e8m0fnu"),
    "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"),
    "I16": (16, "int16"),
    "U16": (16, "uint16"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "I32": (32, "int32"),
    "U32": (32, "uint32"),
    "F32": (32, "float32"),
    "C64": (64, "complex64"),
    "F64": (64, "float64"),
    "I64": (64, "int64"),
    "U64": (64, "uint64"),
}
WRITTEN = [name for name, (_, own) in DTYPES.items() if own is not None]
METADATA = {"key": "value", "é": '"\\\n\U0001f985', "": ""}


def raw_tensors(dtypes, rng):
    """Several shapes of each dtype, each a whole number of bytes."""
    tensors = []
    for dtype in dtypes:
        bits, _ = DTYPES[dtype]
        for shape in [[4], [0, 4], [3, 2, 4], [1, 257, 4]]:
            count = torch.Size(shape).numel()
            name = f"{dtype} {shape} é"
            tensors.append((name, dtype, shape, rng.randbytes(count * bits // 8)))
    return tensors


def package_specs(tensors):
    """TensorSpecs hold addresses: keep the buffers alive."""
    specs, buffers = {}, []
    for name, dtype, shape, data in tensors:
        buffer = ctypes.create_string_buffer(data, max(1, len(data)))
        buffers.append(buffer)
        if dtype == "F4":  # the package counts pairs
            shape = [*shape[:-1], shape[-1] // 2]
        specs[name] = safetensors.TensorSpec(
            dtype=DTYPES[dtype][1],
            shape=shape,
            data_ptr=ctypes.addressof(buffer),
            data_len=len(data),
        )
    return specs, buffers


def by_package(content):
    """The package's view of a file's bytes, sorted."""
    return sorted(
        (name, t["dtype"], list(t["shape"]), bytes(t["data"]))
        for name, t in safetensors.deserialize(content)
    )


def test_the_package_knows_no_other_dtype():
    """Its message for an unknown dtype lists all of them."""
    with pytest.raises(Exception) as error:
        safetensors.TensorSpec(dtype="?", shape=[], data_ptr=0, data_len=0)
    listed = re.search(r"Supported dtypes: (.*)", str(error.value)).group(1)
    known = {name for _, name in DTYPES.values() if name is not None}
    assert set(re.findall(r"\w+", listed)) == known


@pytest.mark.parametrize("dtype", DTYPES)
def test_package_reads_ours(tmp_path, dtype):
    tensors = raw_tensors([dtype], random.Random(1))
    _C.write_safetensors(tmp_path / "f", tensors, METADATA)
    assert by_package((tmp_path / "f").read_bytes()) == sorted(tensors)
    with safetensors.safe_open(tmp_path / "f", framework="pt") as file:
        assert file.metadata() == METADATA
        assert sorted(file.keys()) == sorted(t[0] for t in tensors)


@pytest.mark.parametrize("dtype", WRITTEN)
def test_we_read_the_packages(tmp_path, dtype):
    tensors = raw_tensors([dtype], random.Random(2))
    specs, _buffers = package_specs(tensors)
    safetensors.serialize_file(specs, tmp_path / "f", METADATA)
    read, metadata = _C.read_checkpoint(tmp_path / "f")
    assert sorted(read) == sorted(tensors)
    assert metadata == METADATA


def test_all_dtypes_in_one_file(tmp_path):
    """Dtypes of every width together: order and alignment."""
    tensors = raw_tensors(DTYPES, random.Random(3))
    _C.write_safetensors(tmp_path / "ours", tensors)
    assert by_package((tmp_path / "ours").read_bytes()) == sorted(tensors)
    tensors = raw_tensors(WRITTEN, random.Random(4))
    specs, _buffers = package_specs(tensors)
    safetensors.serialize_file(specs, tmp_path / "theirs")
    assert sorted(_C.read_checkpoint(tmp_path / "theirs")[0]) == sorted(tensors)


def test_torch_loads_ours(tmp_path):
    """Reads with the package's torch functions, which map the file."""
    written = {
        "f32": torch.randn(3, 5),
        "bf16": torch.randn(7).bfloat16(),
        "f16": torch.randn(2, 2).half(),
        "f64": torch.randn(1, dtype=torch.float64),
        "i64": torch.arange(5),
        "bool": torch.tensor([True, False, True]),
        "f8": torch.randn(3).to(torch.float8_e4m3fn),
    }
    safetensors.torch.save_file(written, tmp_path / "theirs")
    tensors, _ = _C.read_checkpoint(tmp_path / "theirs")
    _C.write_safetensors(tmp_path / "ours", tensors)
    loaded = safetensors.torch.load_file(tmp_path / "ours")
    assert loaded.keys() == written.keys()
    for name, tensor in written.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].data_ptr() % tensor.element_size() == 0
        assert torch.equal(loaded[name].view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.slow
def test_damaged_files(tmp_path):
    """The package accepts every file that Merganser accepts, with the same content.
    Merganser is stricter in the ways listed here."""
    stricter = r"duplicate|unknown key"
    rng = random.Random(5)
    tensors = [("a", "F32", [3], rng.randbytes(12)), ("b", "U8", [5], b"12345")]
    path = tmp_path / "f"
    _C.write_safetensors(path, tensors, {"k": "v"})
    whole = path.read_bytes()
    counts = {"both": 0, "neither": 0, "package only": 0}
    for _ in range(4000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 2)):
            place = rng.randrange(len(damaged))
            if rng.random() < 0.5:
                damaged[place] = rng.choice(b'{}[]":,0123459 \\\0\xff')
            else:
                damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            expected = by_package(bytes(damaged))
        except safetensors.SafetensorError:
            expected = None
        try:
            found = sorted(_C.read_checkpoint(path)[0])
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            if expected is not None:
                assert re.search(stricter, str(error)), error
            counts["neither" if expected is None else "package only"] += 1
            continue
        assert found == expected
        counts["both"] += 1
    assert min(counts["both"], counts["neither"]) > 100, counts


def test_null_metadata(tmp_path):
    """Both read them as none."""
    header = b'{"__metadata__":null,'
    header += b'"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'
    path = tmp_path / "f"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"abc")
    with safetensors.safe_open(path, framework="pt") as file:
        assert not file.metadata()
    assert _C.read_checkpoint(path) == ([("w", "U8", [3], b"abc")], {})


def tiny_bert():
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
    )
    return transformers.BertModel(config)


@pytest.mark.parametrize("shard_bytes", [2**63, 2000])
def test_transformers_loads_our_checkpoint(tmp_path, shard_bytes):
    model = tiny_bert()
    model.save_pretrained(tmp_path / "theirs")
    tensors, _ = _C.read_checkpoint(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    model.config.save_pretrained(tmp_path / "ours")
    _C.write_checkpoint(tmp_path / "ours", tensors, shard_bytes=shard_bytes)
    sharded = (tmp_path / "ours/model.safetensors.index.json").exists()
    assert sharded == (shard_bytes == 2000)
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_we_read_transformers_shards(tmp_path):
    model = tiny_bert()
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="5KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, _ = _C.read_checkpoint(tmp_path / "one")
    many, _ = _C.read_checkpoint(tmp_path / "many")
    assert sorted(one) == sorted(many)
    assert _C.content_hash(tmp_path / "one") == _C.content_hash(tmp_path / "many")


def test_errors_are_those_of_the_package(tmp_path):
    """Errors are merganser.InputError, one sentence each."""
    (tmp_path / "f").write_bytes(struct.pack("<Q", 2) + b"{}rest")
    with pytest.raises(InputError, match=r"f: 4 bytes follow the last tensor"):
        _C.read_checkpoint(tmp_path / "f")
    with pytest.raises(InputError, match="'w': declared twice"):
        _C.write_safetensors(tmp_path / "g", [("w", "U8", [1], b"1")] * 2)
    with pytest.raises(InputError, match="unknown dtype 'F5'"):
        _C.write_safetensors(tmp_path / "g", [("w", "F5", [1], b"1")])
    assert not (tmp_path / "g").exists()
