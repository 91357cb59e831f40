#include "merganser/bindings/long_call.h"
#include "merganser/bindings/module.h"
#include "merganser/io/hub_cache.h"
#include "merganser/model/compute_dtype.h"
#include "merganser/text/batching.h"
#include "merganser/train/trainer.h"

namespace merganser::bindings {
namespace {

std::string get_dtype(const TrainOptions& options) {
  return options.bfloat16 ? "bfloat16" : "float32";
}

void set_dtype(TrainOptions& options, const std::string& name) {
  options.bfloat16 = parse_bfloat16(name);
}

std::vector<std::vector<int64_t>> batch_order(
    const std::vector<int64_t>& lengths,
    int64_t batch_size,
    uint64_t seed,
    int64_t epoch) {
  Dataset data;
  for (const int64_t length : lengths) {
    data.ids.emplace_back(length);
    data.labels.push_back(0);
  }
  return training_batches(data, batch_size, seed, epoch);
}

} // namespace

// The options have the names of the command line's flags.
void bind_train(py::module_& m) {
  py::class_<TrainOptions>(m, "TrainOptions")
      .def(py::init<>())
      .def_property(
          "model",
          [](const TrainOptions& o) { return o.model; },
          [](TrainOptions& o, const std::filesystem::path& path) {
            o.model = find_model(path);
          })
      .def_readwrite("train", &TrainOptions::train)
      .def_readwrite("eval", &TrainOptions::eval)
      .def_readwrite("out", &TrainOptions::out)
      .def_readwrite("epochs", &TrainOptions::epochs)
      .def_readwrite("max_steps", &TrainOptions::max_steps)
      .def_readwrite("lr", &TrainOptions::learning_rate)
      .def_readwrite("batch_size", &TrainOptions::batch_size)
      .def_readwrite("accumulate", &TrainOptions::accumulate)
      .def_readwrite("max_length", &TrainOptions::max_length)
      .def_readwrite("num_labels", &TrainOptions::num_labels)
      .def_readwrite("seed", &TrainOptions::seed)
      .def_property("dtype", &get_dtype, &set_dtype)
      .def_property(
          "scheduler",
          [](const TrainOptions& o) { return schedule_name(o.schedule); },
          [](TrainOptions& o, const std::string& name) {
            o.schedule = parse_schedule(name);
          })
      .def_readwrite("warmup", &TrainOptions::warmup)
      .def_readwrite("weight_decay", &TrainOptions::weight_decay)
      .def_readwrite("beta1", &TrainOptions::beta1)
      .def_readwrite("beta2", &TrainOptions::beta2)
      .def_readwrite("epsilon", &TrainOptions::epsilon)
      .def_readwrite("clip", &TrainOptions::clip)
      .def_readwrite("dropout", &TrainOptions::dropout)
      .def_readwrite("linearized", &TrainOptions::linearized)
      .def_property(
          "fisher",
          [](const TrainOptions& o) { return training_fisher_name(o.fisher); },
          [](TrainOptions& o, const std::string& name) {
            o.fisher = parse_training_fisher(name);
          })
      .def_readwrite("fisher_interval", &TrainOptions::fisher_interval)
      .def_property(
          "fisher_storage",
          [](const TrainOptions& o) { return storage_name(o.fisher_storage); },
          [](TrainOptions& o, const std::string& name) {
            o.fisher_storage = parse_storage(name);
          })
      .def_readwrite("proximal", &TrainOptions::proximal)
      .def_readwrite("proximal_weight", &TrainOptions::proximal_weight)
      .def_readwrite("checkpoint_steps", &TrainOptions::checkpoint_steps);

  // The result as the JSON that `merganser train --json` prints.
  m.def(
      "train",
      [](const TrainOptions& options, const ProgressCallback& progress) {
        return train(options, progress).to_json();
      },
      py::arg("options"),
      py::arg("progress") = ProgressCallback(),
      py::call_guard<LongCall>());

  m.def(
      "batch_order",
      &batch_order,
      py::arg("lengths"),
      py::arg("batch_size"),
      py::arg("seed"),
      py::arg("epoch"));
}

} // namespace merganser::bindings
