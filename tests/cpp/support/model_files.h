#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "merganser/io/atomic_file.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"

// Small models and Fishers on disk.
namespace merganser::test {

struct TestTensor {
  TensorInfo info;
  std::vector<std::byte> data;
};

inline TestTensor floats(
    const std::string& name,
    const std::vector<double>& values,
    DType dtype = DType::kF32) {
  TestTensor tensor{{name, dtype, {std::ssize(values)}}, {}};
  tensor.data.resize(tensor.info.bytes());
  from_float64(dtype, values.data(), tensor.data.data(), values.size());
  return tensor;
}

inline TestTensor integers(
    const std::string& name,
    const std::vector<int64_t>& values) {
  TestTensor tensor{{name, DType::kI64, {std::ssize(values)}}, {}};
  tensor.data.resize(tensor.info.bytes());
  std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  return tensor;
}

// Writes without fsync, which dominates the time of small merges.
inline void write_text(
    const std::filesystem::path& file,
    const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

inline void write_tensors(
    const std::filesystem::path& file,
    const std::vector<TestTensor>& tensors,
    const Metadata& metadata = {}) {
  nlohmann::json header = {{"__metadata__", metadata}};
  std::string data;
  for (const TestTensor& tensor : tensors) {
    const size_t begin = data.size();
    data.append(
        reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
    header[tensor.info.name] = {
        {"dtype", dtype_name(tensor.info.dtype)},
        {"shape", tensor.info.shape},
        {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  std::string file_bytes(sizeof(size), 0);
  std::memcpy(file_bytes.data(), &size, sizeof(size));
  write_text(file, file_bytes + text + data);
}

inline void write_model(
    const std::filesystem::path& folder,
    const std::vector<TestTensor>& tensors,
    const std::string& config = R"({"model_type": "bert"})") {
  std::filesystem::create_directories(folder);
  write_text(folder / "config.json", config);
  write_tensors(folder / "model.safetensors", tensors);
}

// A Fisher of the model in `folder`.
inline void write_fisher(
    const std::filesystem::path& file,
    const std::vector<TestTensor>& tensors,
    const std::filesystem::path& folder,
    int64_t num_examples) {
  FisherMetadata metadata;
  metadata.estimator = "exact";
  metadata.num_examples = num_examples;
  metadata.num_examples_used = num_examples;
  metadata.labels = "model";
  metadata.base_model_hash = Checkpoint(folder).content_hash();
  write_tensors(file, tensors, metadata.to_metadata());
}

inline std::vector<double> read_values(
    const std::filesystem::path& checkpoint,
    const std::string& name) {
  const Checkpoint file(checkpoint);
  const TensorInfo* info = file.find(name);
  std::vector<std::byte> data(info->bytes());
  file.read(name, data);
  std::vector<double> values(info->numel());
  to_float64(info->dtype, data.data(), values.data(), values.size());
  return values;
}

} // namespace merganser::test
