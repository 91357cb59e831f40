// merganser eval --model DIR --data F ...

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/model_option.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/progress.h"
#include "merganser/eval/evaluate.h"
#include "merganser/eval/predict.h"
#include "merganser/eval/predictive_average.h"
#include "merganser/eval/ranks.h"
#include "merganser/fisher/posterior.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/hash.h"
#include "merganser/model/classifier.h"
#include "merganser/model/first_order.h"

namespace merganser::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options {
  fs::path model;
  std::vector<fs::path> data;
  int64_t batch_size = 32;
  int64_t max_length = 128;
  bool bfloat16 = false;
  std::optional<fs::path> linearized_at;
  std::optional<int64_t> samples; // of the posterior; none: the model itself
  std::optional<fs::path> fisher;
  std::optional<fs::path> base_fisher;
  double delta = 0;
  uint64_t seed = 0;
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

// Posterior of the model, if samples of it are requested.
std::optional<Posterior> load_posterior(const Options& options) {
  if (options.samples.has_value() != options.fisher.has_value()) {
    throw InputError("expected --samples and --fisher together, got one");
  }
  if (!options.samples) {
    return std::nullopt;
  }
  if (options.linearized_at) {
    throw InputError("--samples and --linearized-at are mutually exclusive");
  }
  Posterior posterior = Posterior::laplace(
      options.model, *options.fisher, options.base_fisher, options.delta);
  if (posterior.zeros() > 0) {
    throw InputError(fmt::format(
        "{} parameters have precision 0; expected --delta above 0, the "
        "precision of a prior",
        posterior.zeros()));
  }
  return posterior;
}

// Logarithms of the probabilities (N, K), of the posterior if there is one.
at::Tensor log_probabilities(
    Encoder& model,
    const std::optional<Posterior>& posterior,
    const Dataset& data,
    int32_t pad_id,
    const Options& options,
    const ProgressCallback& progress) {
  if (!posterior) {
    return predict(
        model, data, pad_id, options.batch_size, options.bfloat16, progress);
  }
  return predictive_average(
      model,
      *posterior,
      *options.samples,
      options.seed,
      data,
      pad_id,
      options.batch_size,
      options.bfloat16,
      progress);
}

// Identifies what ranks must share: the files' contents and the options.
std::string inputs_of(const Options& options) {
  Hasher hasher;
  for (const fs::path& file : options.data) {
    hasher.update(hash_file(file));
  }
  hasher.update(Checkpoint(options.model).content_hash());
  hasher.update(
      options.linearized_at ? Checkpoint(*options.linearized_at).content_hash()
                            : "");
  for (const auto& path : {options.fisher, options.base_fisher}) {
    hasher.update(path ? hash_file(*path) : "");
  }
  hasher.update(fmt::format(
      "{} {} {} {} {} {}",
      options.batch_size,
      options.max_length,
      options.bfloat16,
      options.samples.value_or(0),
      options.delta,
      options.seed));
  return hasher.digest();
}

void print(const EvalResult& result, const fs::path& file) {
  fmt::print(
      "{}: accuracy {:.2f} %, loss {:.4f}, {} examples\n",
      file.string(),
      100 * result.accuracy,
      result.loss,
      result.examples);
}

void eval(const Options& options, const CommonOptions& common) {
  Ranks ranks = Ranks::from_environment();
  const bool first = ranks.rank() == 0;
  const Classifier classifier(options.model);
  Encoder model = evaluated_model(classifier, options);
  const std::optional<Posterior> posterior = load_posterior(options);
  if (ranks.size() > 1) {
    ranks.compare(inputs_of(options));
  }
  Json json = Json::array();
  for (const fs::path& file : options.data) {
    const Dataset data = classifier.load(file, options.max_length);
    at::Tensor log_p;
    {
      ProgressBar bar("eval", "examples", common.quiet || !first);
      log_p = log_probabilities(
          model,
          posterior,
          ranks.share(data, options.batch_size),
          classifier.tokenizer->pad_id(),
          options,
          bar.callback());
    }
    log_p = ranks.gather(log_p, data, options.batch_size);
    if (!first) {
      continue;
    }
    const EvalResult result = score(log_p, data.labels);
    if (common.json) {
      json.push_back(
          {{"file", file.string()},
           {"examples", result.examples},
           {"accuracy", result.accuracy},
           {"loss", result.loss}});
    } else {
      print(result, file);
    }
  }
  if (common.json && first) {
    fmt::print("{}\n", json_text(json, 2));
  }
}

void add_posterior_options(CLI::App& parser, Options& o) {
  parser
      .add_option(
          "--samples",
          o.samples,
          "Average the probabilities over this many samples of the posterior")
      ->check(whole_number(1, 1'000'000));
  parser.add_option("--fisher", o.fisher, "--samples: Fisher of the model");
  parser.add_option(
      "--base-fisher",
      o.base_fisher,
      "--samples: Fisher of the base, whose posterior is the prior");
  parser
      .add_option(
          "--delta", o.delta, "--samples: precision of a normal prior to add")
      ->capture_default_str();
  add_seed(parser, o.seed, "--samples: random seed");
  for (const char* option : {"--base-fisher", "--delta", "--seed"}) {
    parser.get_option(option)->needs(parser.get_option("--samples"));
  }
}

} // namespace

Work define_eval(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  add_model(parser, "--model", options->model, "Model directory")->required();
  parser
      .add_option("--data", options->data, "Labelled data: .jsonl, .csv, .tsv")
      ->required();
  add_batch_size(parser, options->batch_size);
  add_max_length(parser, options->max_length);
  add_dtype(parser, options->bfloat16);
  add_model(
      parser,
      "--linearized-at",
      options->linearized_at,
      "Evaluate the first-order model at this directory's weights");
  add_posterior_options(parser, *options);
  return [options, &common] { eval(*options, common); };
}

} // namespace merganser::app
