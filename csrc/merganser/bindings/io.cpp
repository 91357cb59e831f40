#include "merganser/bindings/long_call.h"
#include "merganser/bindings/module.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/hub_cache.h"

// Files as raw bytes, for types that torch lacks and for tests that compare
// with the safetensors package.

namespace merganser::bindings {
namespace {

// (name, dtype, shape, data)
using RawTensor =
    std::tuple<std::string, std::string, std::vector<int64_t>, py::bytes>;

std::pair<std::vector<RawTensor>, Metadata> read_checkpoint(
    const std::filesystem::path& path) {
  const Checkpoint checkpoint(find_model(path));
  std::vector<RawTensor> tensors;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    // Created uninitialized and then filled: no second copy.
    auto data = py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(
        nullptr, static_cast<py::ssize_t>(tensor.bytes())));
    if (!data) {
      throw py::error_already_set();
    }
    checkpoint.read(
        tensor.name,
        std::as_writable_bytes(
            std::span(PyBytes_AS_STRING(data.ptr()), tensor.bytes())));
    tensors.emplace_back(
        tensor.name, dtype_name(tensor.dtype), tensor.shape, std::move(data));
  }
  return {std::move(tensors), checkpoint.metadata()};
}

template <typename Writer>
void write_all(Writer& writer, const std::vector<RawTensor>& tensors) {
  for (const auto& [name, dtype, shape, data] : tensors) {
    writer.write(name, std::as_bytes(std::span(std::string_view(data))));
  }
  writer.finish();
}

std::vector<TensorInfo> infos(const std::vector<RawTensor>& tensors) {
  std::vector<TensorInfo> result;
  for (const auto& [name, dtype, shape, data] : tensors) {
    result.push_back({name, parse_dtype(dtype), shape});
  }
  return result;
}

} // namespace

void bind_io(py::module_& m) {
  m.def("read_checkpoint", &read_checkpoint, py::arg("path"));
  m.def(
      "write_safetensors",
      [](const std::filesystem::path& path,
         const std::vector<RawTensor>& tensors,
         const Metadata& metadata) {
        SafetensorsWriter writer(path, infos(tensors), metadata);
        write_all(writer, tensors);
      },
      py::arg("path"),
      py::arg("tensors"),
      py::arg("metadata") = Metadata());
  m.def(
      "write_checkpoint",
      [](const std::filesystem::path& folder,
         const std::vector<RawTensor>& tensors,
         const Metadata& metadata,
         uint64_t shard_bytes) {
        CheckpointWriter writer(folder, infos(tensors), metadata, shard_bytes);
        write_all(writer, tensors);
      },
      py::arg("folder"),
      py::arg("tensors"),
      py::arg("metadata") = Metadata(),
      py::arg("shard_bytes") = UINT64_MAX);
  m.def(
      "content_hash",
      [](const std::filesystem::path& path) {
        return Checkpoint(find_model(path)).content_hash();
      },
      py::arg("path"),
      py::call_guard<LongCall>());
}

} // namespace merganser::bindings
