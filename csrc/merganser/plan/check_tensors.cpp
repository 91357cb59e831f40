#include "merganser/plan/check_tensors.h"

#include <algorithm>

#include "merganser/base/quote.h"

namespace merganser {
namespace {

using Names = std::vector<std::string>;

using Sentence = fmt::format_string<std::string, std::string>;

// Adds a sentence about two checkpoints, followed by `names`, unless there are
// none.
void report(
    Problems& problems,
    Sentence sentence,
    const Checkpoint& here,
    const Checkpoint& there,
    const Names& names) {
  if (!names.empty()) {
    problems.add(
        fmt::format(sentence, here.path().string(), there.path().string()) +
        ": " + list_some(names));
  }
}

// The same about one checkpoint.
void report(
    Problems& problems,
    fmt::format_string<std::string> sentence,
    const Checkpoint& here,
    const Names& names) {
  if (!names.empty()) {
    problems.add(
        fmt::format(sentence, here.path().string()) + ": " + list_some(names));
  }
}

std::string with_shapes(const TensorInfo& here, const TensorInfo& there) {
  return fmt::format(
      "{} {}, expected {}",
      quote(here.name),
      here.shape_text(),
      there.shape_text());
}

std::string with_type(const TensorInfo& tensor) {
  return fmt::format("{} {}", quote(tensor.name), dtype_name(tensor.dtype));
}

bool skipped(const TensorInfo& tensor, bool skip_heads) {
  return skip_heads && is_head_tensor(tensor.name);
}

// Compares two tensors of one shape and type, part by part.
bool same_bytes(const StoredTensor& x, const StoredTensor& y) {
  constexpr uint64_t kPart = uint64_t{1} << 20;
  const uint64_t size = x.info().bytes();
  std::vector<std::byte> a, b;
  for (uint64_t begin = 0; begin < size; begin += kPart) {
    a.resize(std::min(kPart, size - begin));
    b.resize(a.size());
    x.read(a, begin);
    y.read(b, begin);
    if (a != b) {
      return false;
    }
  }
  return true;
}

} // namespace

TensorKind tensor_kind(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kU8:
    case DType::kI8:
    case DType::kU16:
    case DType::kI16:
    case DType::kU32:
    case DType::kI32:
    case DType::kU64:
    case DType::kI64:
      return TensorKind::kInteger;
    default:
      return is_mergeable(dtype) ? TensorKind::kFloat
                                 : TensorKind::kUnsupported;
  }
}

bool is_head_tensor(std::string_view name) {
  constexpr std::string_view kPrefixes[] = {
      "classifier.", "pre_classifier.", "score."};
  return std::ranges::any_of(kPrefixes, [&](std::string_view prefix) {
    return name.starts_with(prefix);
  });
}

void check_types(const Checkpoint& model, bool skip_heads, Problems& problems) {
  Names names;
  for (const TensorInfo& tensor : model.tensors()) {
    if (tensor_kind(tensor.dtype) == TensorKind::kUnsupported &&
        !skipped(tensor, skip_heads)) {
      names.push_back(with_type(tensor));
    }
  }
  report(
      problems,
      "{} has tensors of types that cannot be merged; convert them to bfloat16 "
      "or wider first",
      model,
      names);
}

void check_tensors(
    const Checkpoint& model,
    const Checkpoint& reference,
    bool skip_heads,
    Problems& problems) {
  Names missing, extra, shapes, types;
  for (const TensorInfo& expected : reference.tensors()) {
    if (skipped(expected, skip_heads)) {
      continue;
    }
    const TensorInfo* found = model.find(expected.name);
    if (found == nullptr) {
      missing.push_back(quote(expected.name));
      continue;
    }
    if (found->shape != expected.shape) {
      shapes.push_back(with_shapes(*found, expected));
    }
    const bool floats = tensor_kind(found->dtype) == TensorKind::kFloat &&
        tensor_kind(expected.dtype) == TensorKind::kFloat;
    if (found->dtype != expected.dtype && !floats) {
      types.push_back(fmt::format(
          "{}, expected {}", with_type(*found), dtype_name(expected.dtype)));
    }
  }
  for (const TensorInfo& found : model.tensors()) {
    if (!reference.find(found.name) && !skipped(found, skip_heads)) {
      extra.push_back(quote(found.name));
    }
  }
  report(problems, "{} lacks tensors of {}", model, reference, missing);
  report(problems, "{} has tensors that {} lacks", model, reference, extra);
  report(problems, "{} differs from {} in shape", model, reference, shapes);
  report(problems, "{} differs from {} in type", model, reference, types);
}

void check_fisher(
    const Checkpoint& fisher,
    const Checkpoint& model,
    bool skip_heads,
    Problems& problems) {
  Names missing, extra, shapes, types;
  for (const TensorInfo& tensor : model.tensors()) {
    const TensorInfo* found = fisher.find(tensor.name);
    if (found == nullptr) {
      if (tensor_kind(tensor.dtype) == TensorKind::kFloat &&
          !skipped(tensor, skip_heads)) {
        missing.push_back(quote(tensor.name));
      }
      continue;
    }
    if (found->shape != tensor.shape) {
      shapes.push_back(with_shapes(*found, tensor));
    }
    if (found->dtype != DType::kF32 && found->dtype != DType::kF64) {
      types.push_back(with_type(*found));
    }
  }
  for (const TensorInfo& found : fisher.tensors()) {
    if (!model.find(found.name)) {
      extra.push_back(quote(found.name));
    }
  }
  report(
      problems, "{} has no Fisher for tensors of {}", fisher, model, missing);
  report(
      problems,
      "{} is the Fisher of another model, with tensors that {} lacks",
      fisher,
      model,
      extra);
  report(
      problems,
      "{} is the Fisher of another model, which differs from {} in shape",
      fisher,
      model,
      shapes);
  report(
      problems,
      "{} must store the Fisher as F32 or F64, so that small values survive",
      fisher,
      types);
}

void check_gram(
    const Checkpoint& gram,
    const Checkpoint& model,
    Problems& problems) {
  Names extra, shapes, types;
  for (const TensorInfo& found : gram.tensors()) {
    const TensorInfo* weight = model.find(found.name);
    if (weight == nullptr) {
      extra.push_back(quote(found.name));
      continue;
    }
    const auto& shape = weight->shape;
    if (shape.size() != 2 ||
        found.shape != std::vector<int64_t>{shape[1], shape[1]}) {
      shapes.push_back(fmt::format(
          "{} {} for a weight {}",
          quote(found.name),
          found.shape_text(),
          weight->shape_text()));
    }
    if (found.dtype != DType::kF32 && found.dtype != DType::kF64) {
      types.push_back(with_type(found));
    }
  }
  report(
      problems,
      "{} has Gram matrices of another model, with tensors that {} lacks",
      gram,
      model,
      extra);
  report(
      problems,
      "{} has Gram matrices of another size than the inputs of {}",
      gram,
      model,
      shapes);
  report(problems, "{} must store Gram matrices as F32 or F64", gram, types);
}

void check_integers(
    const std::vector<const Checkpoint*>& models,
    bool skip_heads,
    Problems& problems) {
  const Checkpoint& reference = *models.front();
  for (const TensorInfo& tensor : reference.tensors()) {
    if (tensor_kind(tensor.dtype) != TensorKind::kInteger ||
        skipped(tensor, skip_heads)) {
      continue;
    }
    for (const Checkpoint* model : models) {
      const TensorInfo* info = model->find(tensor.name);
      if (info == nullptr || *info != tensor) {
        continue; // reported by check_tensors
      }
      if (!same_bytes(model->at(tensor.name), reference.at(tensor.name))) {
        problems.add(fmt::format(
            "{} differs from {} in tensor {}, which is not merged; set "
            "base_model to copy it from the base",
            model->file_of(tensor.name).string(),
            reference.file_of(tensor.name).string(),
            with_type(tensor)));
      }
    }
  }
}

} // namespace merganser
