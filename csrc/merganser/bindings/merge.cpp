#include "merganser/bindings/call_python.h"
#include "merganser/bindings/long_call.h"
#include "merganser/bindings/module.h"
#include "merganser/engine/execute.h"
#include "merganser/io/hub_cache.h"
#include "merganser/plan/fisher_notes.h"
#include "merganser/plan/name_map.h"
#include "merganser/plan/plan_text.h"
#include "merganser/provenance/inspect.h"
#include "merganser/provenance/verify.h"
#include "merganser/recipe/layer_name.h"
#include "merganser/recipe/methods.h"
#include "merganser/recipe/read_options.h"

namespace merganser::bindings {
namespace {

std::string merge_recipe(
    const std::filesystem::path& recipe,
    const std::filesystem::path& out,
    int threads,
    uint64_t memory,
    bool resume,
    std::optional<uint64_t> shard_bytes,
    bool allow_nonfinite,
    const ProgressCallback& progress) {
  const MergePlan plan = make_plan(Recipe::load(recipe));
  const MergeOptions options = {
      .threads = threads,
      .memory = memory,
      .resume = resume,
      .shard_bytes = shard_bytes,
      .allow_nonfinite = allow_nonfinite};
  return execute_merge(plan, out, options, progress).to_json();
}

using FindModel = std::function<std::filesystem::path(
    const std::string& text,
    const std::string& name,
    const std::string& revision)>;

std::string plan_recipe(
    const std::filesystem::path& recipe,
    const FindModel& find,
    int threads,
    std::optional<uint64_t> memory,
    bool json) {
  const HubFinder finder = [&](const std::string& text, const HubModel& model) {
    return call_python([&] { return find(text, model.name, model.revision); });
  };
  const HubFinderScope scope(finder);
  const MergePlan plan = make_plan(Recipe::load(recipe));
  const BufferMemory buffers = memory ? fit_threads(plan, threads, *memory)
                                      : buffer_memory(plan, threads);
  return json ? plan_json(plan, buffers) : plan_text(plan, buffers);
}

} // namespace

// Plans, reports and inspections are the JSON that `--json` prints: one
// description serves the executable and Python.
void bind_merge(py::module_& m) {
  py::class_<MethodInfo>(m, "MethodInfo")
      .def_property_readonly(
          "id", [](const MethodInfo& i) { return static_cast<int>(i.formula); })
      .def_readonly("name", &MethodInfo::name)
      .def_readonly("formula", &MethodInfo::text)
      .def_readonly("needs_base", &MethodInfo::needs_base)
      .def_readonly("needs_fishers", &MethodInfo::needs_fishers)
      .def_readonly("needs_subspace", &MethodInfo::needs_subspace)
      .def_readonly("needs_base_fisher", &MethodInfo::needs_base_fisher)
      .def_readonly("shrinks_base", &MethodInfo::shrinks_base)
      .def_property_readonly("needs_grams", &MethodInfo::needs_grams)
      .def_property_readonly("needs_base_gram", &MethodInfo::needs_base_gram)
      .def_property_readonly(
          "uses_rho",
          [](const MethodInfo& method) {
            return method.find_parameter("rho") != nullptr;
          })
      .def_property_readonly("needs_statistics", &MethodInfo::needs_statistics)
      .def_property_readonly("is_random", &MethodInfo::is_random);
  m.def(
      "find_method",
      &find_method,
      py::arg("name"),
      py::return_value_policy::reference);
  m.def(
      "different_scales",
      &different_scales,
      py::arg("estimators"),
      py::arg("method"));
  m.def(
      "is_linear_weight",
      [](const std::string& name, std::vector<int64_t> shape) {
        return is_linear_weight({name, DType::kF32, std::move(shape)});
      },
      py::arg("name"),
      py::arg("shape"));
  m.def("canonical_name", &canonical_name, py::arg("tied"));
  m.def("check_count", &check_count, py::arg("method"), py::arg("models"));
  m.def(
      "merge_recipe",
      &merge_recipe,
      py::arg("recipe"),
      py::arg("out"),
      py::arg("threads"),
      py::arg("memory"),
      py::arg("resume"),
      py::arg("shard_bytes"),
      py::arg("allow_nonfinite"),
      py::arg("progress"),
      py::call_guard<LongCall>());
  m.def(
      "plan",
      &plan_recipe,
      py::arg("recipe"),
      py::arg("find"),
      py::arg("threads"),
      py::arg("memory"),
      py::arg("json"),
      py::call_guard<LongCall>());
  m.def(
      "verify",
      [](const std::filesystem::path& folder) {
        return verify(folder).to_json();
      },
      py::arg("folder"),
      py::call_guard<LongCall>());
  m.def(
      "inspect",
      [](const std::filesystem::path& path, bool hashes) {
        return inspect(find_model(path), hashes).to_json();
      },
      py::arg("path"),
      py::arg("hashes"),
      py::call_guard<LongCall>());
}

} // namespace merganser::bindings
