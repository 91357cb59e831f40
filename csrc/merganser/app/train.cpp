// merganser train --model DIR --train F --out DIR

#include "merganser/train/trainer.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/progress.h"

namespace merganser::app {
namespace {

void add_data(CLI::App& parser, TrainOptions& o) {
  parser.add_option("--model", o.model, "Model directory to start from")
      ->required();
  parser.add_option("--train", o.train, "Training data: .jsonl, .csv, .tsv")
      ->required();
  parser.add_option(
      "--eval",
      o.eval,
      "Data to evaluate on after every epoch; the best epoch is kept, unless "
      "a Fisher is asked for");
  parser.add_option("--out", o.out, "Folder to make")->required();
  add_max_length(parser, o.max_length);
  parser
      .add_option(
          "--num-labels", o.num_labels, "Labels; 0: as config.json says")
      ->capture_default_str();
}

void add_optimisation(CLI::App& parser, TrainOptions& o) {
  const auto number = [&](const char* name, auto& value, const char* help) {
    parser.add_option(name, value, help)->capture_default_str();
  };
  number("--epochs", o.epochs, "Passes over the data");
  number("--max-steps", o.max_steps, "Steps, instead of epochs; -1: by epochs");
  number("--lr", o.learning_rate, "Highest learning rate");
  add_batch_size(parser, o.batch_size);
  number("--accumulate", o.accumulate, "Forward passes per step");
  add_seed(parser, o.seed, "Of order, dropout, new heads and label draws");
  add_dtype(parser, o.bfloat16);
  parser
      .add_option_function<std::string>(
          "--scheduler",
          [&o](const std::string& name) { o.schedule = parse_schedule(name); },
          "After the warm-up: constant, linear or cosine")
      ->default_str(schedule_name(o.schedule));
  number("--warmup", o.warmup, "Steps; below 1: share of all steps");
  number("--weight-decay", o.weight_decay, "Not for biases and LayerNorms");
  number("--beta1", o.beta1, "Adam's decay of the mean");
  number("--beta2", o.beta2, "Adam's decay of the squares");
  number("--epsilon", o.epsilon, "Adam's");
  number("--clip", o.clip, "Largest gradient norm; 0: none");
  parser.add_option(
      "--dropout", o.dropout, "Instead of all that config.json has");
}

void add_fisher(CLI::App& parser, TrainOptions& o) {
  parser
      .add_option_function<std::string>(
          "--fisher",
          [&o](const std::string& name) {
            o.fisher = parse_training_fisher(name);
          },
          "Collected in the last epoch: none, adam or online_mc")
      ->default_str(training_fisher_name(o.fisher));
  parser
      .add_option(
          "--fisher-interval",
          o.fisher_interval,
          "online_mc: an extra backward pass every so many steps")
      ->capture_default_str();
  parser.add_option(
      "--proximal",
      o.proximal,
      "Fisher of the starting model: adds its distance, 1/2 |theta - theta0|^2 "
      "in N0 F0 / N, to the mean loss");
  parser
      .add_option("--proximal-weight", o.proximal_weight, "Factor on that term")
      ->capture_default_str();
}

} // namespace

Work define_train(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<TrainOptions>();
  add_data(parser, *options);
  add_optimisation(parser, *options);
  add_fisher(parser, *options);
  parser
      .add_option(
          "--checkpoint-steps",
          options->checkpoint_steps,
          "Steps between checkpoints; 0: at the end of every epoch")
      ->capture_default_str();
  return [options, &common] {
    TrainResult result;
    {
      ProgressBar bar("train", "examples", common.quiet);
      result = train(*options, bar.callback());
    }
    if (common.json) {
      fmt::print("{}\n", result.to_json());
    } else if (!common.quiet) {
      fmt::print("{}", result.to_text());
    }
  };
}

} // namespace merganser::app
