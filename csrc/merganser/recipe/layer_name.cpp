#include "merganser/recipe/layer_name.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <tuple>

namespace merganser {
namespace {

constexpr std::string_view kStacks[] =
    {"layer", "layers", "h", "block", "blocks"};

struct Number {
  size_t begin = 0;
  size_t end = 0;
  int value = 0;
};

std::optional<Number> find_number(std::string_view name) {
  size_t begin = 0;
  bool in_stack = false;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    int value = 0;
    const auto [stop, error] =
        std::from_chars(part.data(), part.data() + part.size(), value);
    if (in_stack && error == std::errc() && stop == part.data() + part.size()) {
      return Number{begin, end, value};
    }
    in_stack = std::ranges::find(kStacks, part) != std::end(kStacks);
    begin = end + 1;
  }
  return std::nullopt;
}

} // namespace

std::optional<int> layer_of(std::string_view tensor) {
  const auto number = find_number(tensor);
  return number ? std::optional(number->value) : std::nullopt;
}

std::optional<std::string> stack_of(std::string_view tensor) {
  const auto number = find_number(tensor);
  return number ? std::optional(std::string(tensor.substr(0, number->begin)))
                : std::nullopt;
}

double layer_depth(int layer, int layers) {
  return layers == 1 ? 1 : static_cast<double>(layer) / (layers - 1);
}

std::vector<double> layer_depths(const std::vector<std::string>& tensors) {
  int layers = 0;
  for (const std::string& tensor : tensors) {
    layers = std::max(layers, layer_of(tensor).value_or(-1) + 1);
  }
  std::vector<double> depths;
  for (const std::string& tensor : tensors) {
    const auto layer = layer_of(tensor);
    depths.push_back(layer ? layer_depth(*layer, layers) : kOuterDepth);
  }
  return depths;
}

bool is_before_layers(std::string_view tensor) {
  const auto has = [&](std::string_view part) {
    return tensor.find(part) != std::string_view::npos;
  };
  return (has("embed") && !has("embed_out")) || has("wte.") || has("wpe.");
}

std::string canonical_name(const std::vector<std::string>& tied) {
  return *std::ranges::min_element(tied, {}, [](const std::string& name) {
    const bool is_shared = name.find("shared.") != std::string::npos;
    const int rank = is_shared ? 0 : is_before_layers(name) ? 1 : 2;
    return std::tuple(rank, name.size(), name);
  });
}

std::string with_layer(std::string_view tensor, int layer) {
  const auto number = find_number(tensor);
  return number ? fmt::format(
                      "{}{}{}",
                      tensor.substr(0, number->begin),
                      layer,
                      tensor.substr(number->end))
                : std::string(tensor);
}

} // namespace merganser
