#include "merganser/plan/check_tensors.h"

#include <algorithm>

#include "merganser/base/quote.h"
#include "merganser/plan/compare_tensors.h"

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

// The same about names of tensors, with advice about heads.
void report_names(
    Problems& problems,
    Sentence sentence,
    const Checkpoint& here,
    const Checkpoint& there,
    const Names& names) {
  if (names.empty()) {
    return;
  }
  Names quoted;
  for (const std::string& name : names) {
    quoted.push_back(quote(name));
  }
  std::string text =
      fmt::format(sentence, here.path().string(), there.path().string()) +
      ": " + list_some(quoted);
  if (std::ranges::all_of(names, is_head_tensor)) {
    text +=
        "; with base_model, heads: base or heads: per_task leaves heads out of "
        "the merge";
  }
  problems.add(text);
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

void check_types(
    const Checkpoint& model,
    const Skipped& skipped,
    Problems& problems) {
  Names names;
  for (const TensorInfo& tensor : model.tensors()) {
    if (tensor_kind(tensor.dtype) == TensorKind::kUnsupported &&
        !skipped(tensor.name)) {
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

bool is_extra(
    const NamedCheckpoint& model,
    const TensorInfo& found,
    const Checkpoint& reference) {
  const std::string& name = model.name_of(found);
  const bool is_used =
      reference.find(name) != nullptr && *model.names.find(name) == found.name;
  return !is_used && !is_constant_tensor(found) &&
      !is_copy(model, found, reference);
}

void check_tensors(
    const NamedCheckpoint& model,
    const Checkpoint& reference,
    const Skipped& skipped,
    Problems& problems) {
  Names missing, extra, shapes, types;
  for (const TensorInfo& expected : reference.tensors()) {
    if (skipped(expected.name)) {
      continue;
    }
    const TensorInfo* found = model.find(expected.name);
    if (found == nullptr) {
      if (!is_constant_tensor(expected)) {
        missing.push_back(expected.name);
      }
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
  for (const TensorInfo& found : model.file.tensors()) {
    if (is_extra(model, found, reference) && !skipped(model.name_of(found))) {
      extra.push_back(found.name);
    }
  }
  const Checkpoint& file = model.file;
  report_names(problems, "{} lacks tensors of {}", file, reference, missing);
  report_names(
      problems, "{} has tensors that {} lacks", file, reference, extra);
  report(problems, "{} differs from {} in shape", file, reference, shapes);
  report(problems, "{} differs from {} in type", file, reference, types);
}

void check_fisher(
    const NamedCheckpoint& fisher,
    const NamedCheckpoint& model,
    const std::function<bool(const std::string& name)>& needs_fisher,
    Problems& problems) {
  Names missing, extra, shapes, types;
  for (const TensorInfo& tensor : model.file.tensors()) {
    const std::string& name = model.name_of(tensor);
    const TensorInfo* found = fisher.find(name);
    if (found == nullptr) {
      if (tensor_kind(tensor.dtype) == TensorKind::kFloat &&
          needs_fisher(name)) {
        missing.push_back(quote(tensor.name));
      }
      continue;
    }
    if (found->shape != tensor.shape) {
      shapes.push_back(with_shapes(*found, tensor));
    }
    if (found->dtype != DType::kBF16 && found->dtype != DType::kF32 &&
        found->dtype != DType::kF64) {
      types.push_back(with_type(*found));
    }
  }
  for (const TensorInfo& found : fisher.file.tensors()) {
    if (!model.find(fisher.name_of(found)) &&
        !is_copy(fisher, found, model.file)) {
      extra.push_back(quote(found.name));
    }
  }
  report(
      problems,
      "{} has no Fisher for tensors of {}",
      fisher.file,
      model.file,
      missing);
  report(
      problems,
      "{} is the Fisher of another model, with tensors that {} lacks",
      fisher.file,
      model.file,
      extra);
  report(
      problems,
      "{} is the Fisher of another model, which differs from {} in shape",
      fisher.file,
      model.file,
      shapes);
  report(
      problems,
      "{} must store the Fisher as BF16, F32 or F64, so that small values "
      "survive",
      fisher.file,
      types);
}

void check_gram(
    const NamedCheckpoint& gram,
    const NamedCheckpoint& model,
    Problems& problems) {
  Names extra, shapes, types;
  for (const TensorInfo& found : gram.file.tensors()) {
    const TensorInfo* weight = model.find(gram.name_of(found));
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
      gram.file,
      model.file,
      extra);
  report(
      problems,
      "{} has Gram matrices of another size than the inputs of {}",
      gram.file,
      model.file,
      shapes);
  report(
      problems, "{} must store Gram matrices as F32 or F64", gram.file, types);
}

void check_integers(
    const std::vector<NamedCheckpoint>& models,
    const Skipped& skipped,
    Problems& problems) {
  const Checkpoint& reference = models.front().file;
  for (const TensorInfo& tensor : reference.tensors()) {
    if (tensor_kind(tensor.dtype) != TensorKind::kInteger ||
        skipped(tensor.name)) {
      continue;
    }
    for (const NamedCheckpoint& model : models) {
      const TensorInfo* info = model.find(tensor.name);
      if (info == nullptr || info->shape != tensor.shape ||
          info->dtype != tensor.dtype) {
        continue; // reported by check_tensors
      }
      if (!same_bytes(model.at(tensor.name), reference.at(tensor.name))) {
        problems.add(fmt::format(
            "{} differs from {} in tensor {}, which is not merged; set "
            "base_model to copy it from the base",
            model.file.file_of(info->name).string(),
            reference.file_of(tensor.name).string(),
            with_type(tensor)));
      }
    }
  }
}

} // namespace merganser
