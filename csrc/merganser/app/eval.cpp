// merganser eval --model DIR --data F ...

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/json_text.h"
#include "merganser/base/progress.h"
#include "merganser/eval/evaluate.h"
#include "merganser/model/classifier.h"
#include "merganser/model/first_order.h"

namespace merganser::app {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::filesystem::path model;
  std::vector<std::filesystem::path> data;
  int64_t batch_size = 32;
  int64_t max_length = 128;
  bool bfloat16 = false;
  std::optional<std::filesystem::path> linearized_at;
};

// The model itself, or its first-order model.
Encoder evaluated_model(const Classifier& classifier, const Options& options) {
  if (!options.linearized_at) {
    return classifier.encoder;
  }
  Encoder origin = Classifier(*options.linearized_at).encoder;
  displace(origin, classifier.encoder, options.model.string());
  return origin;
}

void eval(const Options& options, const CommonOptions& common) {
  const Classifier classifier(options.model);
  Encoder model = evaluated_model(classifier, options);
  Json json = Json::array();
  for (const std::filesystem::path& file : options.data) {
    const Dataset data = classifier.load(file, options.max_length);
    EvalResult result;
    {
      ProgressBar bar("eval", "examples", common.quiet);
      result = evaluate(
          model,
          data,
          classifier.tokenizer->pad_id(),
          options.batch_size,
          options.bfloat16,
          bar.callback());
    }
    if (common.json) {
      json.push_back(
          {{"file", file.string()},
           {"examples", result.examples},
           {"accuracy", result.accuracy},
           {"loss", result.loss}});
    } else {
      fmt::print(
          "{}: accuracy {:.2f} %, loss {:.4f}, {} examples\n",
          file.string(),
          100 * result.accuracy,
          result.loss,
          result.examples);
    }
  }
  if (common.json) {
    fmt::print("{}\n", json_text(json, 2));
  }
}

} // namespace

Work define_eval(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  parser.add_option("--model", options->model, "Model directory")->required();
  parser
      .add_option("--data", options->data, "Labelled data: .jsonl, .csv, .tsv")
      ->required();
  add_batch_size(parser, options->batch_size);
  add_max_length(parser, options->max_length);
  add_dtype(parser, options->bfloat16);
  parser.add_option(
      "--linearized-at",
      options->linearized_at,
      "Evaluate the first-order model at this directory's weights");
  return [options, &common] { eval(*options, common); };
}

} // namespace merganser::app
