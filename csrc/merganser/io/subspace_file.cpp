#include "merganser/io/subspace_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <span>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"

namespace merganser {
namespace {

using nlohmann::ordered_json;
using Loss = SubspaceFisher::Loss;

constexpr const char* kFormatVersion = "1";
constexpr const char* kKey = "subspace";

ordered_json describe(const Loss& loss) {
  return {
      {"model_hash", loss.model_hash},
      {"num_examples", loss.num_examples},
      {"counts", loss.counts}};
}

Loss parse_loss(const ordered_json& json) {
  return {
      .model_hash = json.at("model_hash").get<std::string>(),
      .num_examples = json.at("num_examples").get<int64_t>(),
      .counts = json.at("counts").get<std::vector<int64_t>>(),
      .fisher = {},
      .gradient = {}};
}

int64_t folds_of(const Loss& loss) {
  return static_cast<int64_t>(loss.counts.size());
}

int64_t examples_used(const Loss& loss) {
  return std::accumulate(loss.counts.begin(), loss.counts.end(), int64_t{0});
}

bool is_sound(const Loss& loss, bool of_diagonal) {
  const size_t folds = loss.counts.size();
  return (of_diagonal ? folds == 1 : folds >= 2) &&
      std::ranges::min(loss.counts) >= 1 &&
      loss.num_examples >= examples_used(loss);
}

bool is_sound(const SubspaceFisher& fisher) {
  std::set<std::string> tensors;
  size_t named = 0;
  for (const SubspaceFisher::Group& group : fisher.groups) {
    tensors.insert(group.tensors.begin(), group.tensors.end());
    named += group.tensors.size();
  }
  const bool of_diagonals = fisher.is_of_diagonals();
  return !fisher.groups.empty() && fisher.points >= 1 &&
      tensors.size() == named && is_sound(fisher.base, of_diagonals) &&
      std::ranges::any_of(fisher.experts, std::not_fn(&Loss::is_direction)) &&
      std::ranges::all_of(fisher.experts, [&](const Loss& expert) {
        return expert.is_direction() ? expert.num_examples == 0
                                     : is_sound(expert, of_diagonals);
      });
}

bool is_finite(const std::vector<double>& values) {
  return std::ranges::all_of(values, [](double x) { return std::isfinite(x); });
}

void check_values(
    const Loss& loss,
    size_t columns,
    bool has_gradient,
    const std::string& label) {
  const size_t rows = loss.counts.size() * columns;
  if (loss.fisher.size() != rows * columns ||
      loss.gradient.size() != (has_gradient ? rows : 0)) {
    throw InputError(fmt::format(
        "{}: expected Fishers and gradients of {} folds and {} columns",
        label,
        loss.counts.size(),
        columns));
  }
  if (!is_finite(loss.fisher) || !is_finite(loss.gradient)) {
    throw InputError(label + ": has values that are not finite");
  }
}

void check_counts(const Loss& loss, const std::string& label) {
  const int64_t used = examples_used(loss);
  if (loss.num_examples < used) {
    throw InputError(fmt::format(
        "{}: expected num_examples of at least the {} examples used, got {}",
        label,
        used,
        loss.num_examples));
  }
}

std::string name_of(size_t expert, const char* what) {
  return fmt::format("experts.{}.{}", expert, what);
}

std::vector<double> read(
    const Checkpoint& file,
    const std::string& name,
    const std::vector<int64_t>& shape) {
  const TensorInfo* info = file.find(name) ? &file.at(name).info() : nullptr;
  if (info == nullptr || info->dtype != DType::kF64 || info->shape != shape) {
    throw InputError(fmt::format(
        "{}: expected a float64 tensor '{}' of shape [{}], got {}; estimate "
        "the subspace Fisher again",
        file.path().string(),
        name,
        fmt::join(shape, ", "),
        info == nullptr
            ? "none"
            : fmt::format(
                  "{} {}", dtype_name(info->dtype), info->shape_text())));
  }
  std::vector<double> values(static_cast<size_t>(info->numel()));
  file.read(name, std::as_writable_bytes(std::span(values)));
  if (!is_finite(values)) {
    throw InputError(fmt::format(
        "{}: tensor '{}' has values that are not finite",
        file.path().string(),
        name));
  }
  return values;
}

SubspaceFisher parse_metadata(const std::string& text) {
  const ordered_json json = ordered_json::parse(text);
  SubspaceFisher found;
  found.points = json.at("points").get<int64_t>();
  found.seed = json.at("seed").get<uint64_t>();
  for (const ordered_json& group : json.at("groups")) {
    found.groups.push_back(
        {group.at("name").get<std::string>(),
         group.at("tensors").get<std::vector<std::string>>()});
  }
  found.base = parse_loss(json.at("base"));
  for (const ordered_json& expert : json.at("experts")) {
    found.experts.push_back(parse_loss(expert));
  }
  return found;
}

} // namespace

SubspaceFisher SubspaceFisher::as_one_group() const {
  SubspaceFisher one = *this;
  one.groups = {{"all", {}}};
  for (const Group& group : groups) {
    std::ranges::copy(group.tensors, std::back_inserter(one.groups[0].tensors));
  }
  // The G columns of an expert are next to each other, also across folds: row
  // i of a Fisher's folds becomes row i / G.
  const size_t in_group = groups.size();
  const auto sum = [&](const Loss& from, Loss& to) {
    to.fisher.assign(from.fisher.size() / (in_group * in_group), 0);
    to.gradient.assign(from.gradient.size() / in_group, 0);
    for (size_t i = 0; i < from.fisher.size(); ++i) {
      const size_t row = i / columns() / in_group;
      const size_t column = i % columns() / in_group;
      to.fisher[row * one.columns() + column] += from.fisher[i];
    }
    for (size_t i = 0; i < from.gradient.size(); ++i) {
      to.gradient[i / in_group] += from.gradient[i];
    }
  };
  sum(base, one.base);
  for (size_t t = 0; t < experts.size(); ++t) {
    sum(experts[t], one.experts[t]);
  }
  return one;
}

void SubspaceFisher::check() const {
  const auto check_loss =
      [&](const Loss& loss, bool has_gradient, const std::string& label) {
        check_counts(loss, label);
        check_values(loss, columns(), has_gradient, label);
      };
  check_loss(base, false, "base");
  for (size_t t = 0; t < experts.size(); ++t) {
    check_loss(experts[t], true, fmt::format("experts[{}]", t));
  }
  if (!is_sound(*this)) {
    throw InputError(
        "expected a subspace Fisher of at least one expert, with groups of "
        "different tensors and at least two folds with an example each, or one "
        "fold for each loss");
  }
}

void SubspaceFisher::save(const std::filesystem::path& file) const {
  check();
  ordered_json json = {
      {"points", points},
      {"seed", seed},
      {"groups", ordered_json::array()},
      {"base", describe(base)},
      {"experts", ordered_json::array()}};
  for (const Group& group : groups) {
    json["groups"].push_back(
        {{"name", group.name}, {"tensors", group.tensors}});
  }
  for (const Loss& expert : experts) {
    json["experts"].push_back(describe(expert));
  }
  const auto width = static_cast<int64_t>(columns());
  std::vector<TensorInfo> tensors;
  std::vector<const std::vector<double>*> values;
  const auto add = [&](std::string name,
                       std::vector<int64_t> shape,
                       const std::vector<double>& from) {
    tensors.push_back({std::move(name), DType::kF64, std::move(shape)});
    values.push_back(&from);
  };
  add("base.fisher", {folds_of(base), width, width}, base.fisher);
  for (size_t t = 0; t < experts.size(); ++t) {
    if (experts[t].is_direction()) {
      continue;
    }
    const int64_t folds = folds_of(experts[t]);
    add(name_of(t, "fisher"), {folds, width, width}, experts[t].fisher);
    add(name_of(t, "gradient"), {folds, width}, experts[t].gradient);
  }
  SafetensorsWriter writer(
      file,
      tensors,
      {{"format_version", kFormatVersion},
       {"estimator", kSubspaceEstimator},
       {kKey, json_text(json)}});
  for (size_t i = 0; i < tensors.size(); ++i) {
    writer.write(tensors[i].name, std::as_bytes(std::span(*values[i])));
  }
  writer.finish();
}

SubspaceFisher SubspaceFisher::load(const Checkpoint& file) {
  const Metadata& metadata = file.metadata();
  const auto text = metadata.find(kKey);
  const auto version = metadata.find("format_version");
  if (text == metadata.end() || version == metadata.end() ||
      version->second != kFormatVersion) {
    throw InputError(fmt::format(
        "{}: expected a subspace Fisher, as merganser subspace writes it",
        file.path().string()));
  }
  SubspaceFisher found;
  try {
    found = parse_metadata(text->second);
  } catch (const nlohmann::json::exception&) {
    found = {}; // not sound
  }
  if (!is_sound(found)) {
    throw InputError(fmt::format(
        "{}: the metadata key '{}' is damaged; estimate the subspace Fisher "
        "again",
        file.path().string(),
        kKey));
  }
  const auto width = static_cast<int64_t>(found.columns());
  found.base.fisher =
      read(file, "base.fisher", {folds_of(found.base), width, width});
  for (size_t t = 0; t < found.experts.size(); ++t) {
    Loss& expert = found.experts[t];
    if (expert.is_direction()) {
      continue;
    }
    const int64_t folds = folds_of(expert);
    expert.fisher = read(file, name_of(t, "fisher"), {folds, width, width});
    expert.gradient = read(file, name_of(t, "gradient"), {folds, width});
  }
  return found;
}

} // namespace merganser
