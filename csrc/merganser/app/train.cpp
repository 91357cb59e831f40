// merganser train --model DIR --train F --out DIR

#include "merganser/train/trainer.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/app/model_option.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/progress.h"

namespace merganser::app {
namespace {

void add_data(CLI::App& parser, TrainOptions& o) {
  add_model(parser, "--model", o.model, "Model directory to start from")
      ->required();
  parser.add_option("--train", o.train, "Training data: .jsonl, .csv, .tsv")
      ->required();
  parser.add_option(
      "--eval",
      o.eval,
      "Data to evaluate on after every epoch; keeps the best epoch's model "
      "(without --fisher)");
  parser.add_option("--out", o.out, "Output directory")->required();
  add_max_length(parser, o.max_length);
  parser
      .add_option(
          "--num-labels", o.num_labels, "Number of labels; 0: from config.json")
      ->capture_default_str();
}

void add_optimisation(CLI::App& parser, TrainOptions& o) {
  const auto number = [&](const char* name, auto& value, const char* help) {
    parser.add_option(name, value, help)->capture_default_str();
  };
  number("--epochs", o.epochs, "Passes over the data");
  number(
      "--max-steps",
      o.max_steps,
      "Number of steps, replaces --epochs; -1: by epochs");
  number("--lr", o.learning_rate, "Maximum learning rate");
  add_batch_size(parser, o.batch_size);
  number("--accumulate", o.accumulate, "Forward passes per step");
  add_seed(
      parser, o.seed, "Random seed for order, dropout, new heads and labels");
  add_dtype(parser, o.bfloat16);
  parser
      .add_option_function<std::string>(
          "--scheduler",
          [&o](const std::string& name) { o.schedule = parse_schedule(name); },
          "Learning rate after warm-up: constant, linear, cosine")
      ->default_str(schedule_name(o.schedule));
  number("--warmup", o.warmup, "Warm-up steps; below 1: share of all steps");
  number(
      "--weight-decay",
      o.weight_decay,
      "Weight decay, not of biases and LayerNorms");
  number("--beta1", o.beta1, "Adam's decay rate of the mean");
  number("--beta2", o.beta2, "Adam's decay rate of the squares");
  number("--epsilon", o.epsilon, "Adam's epsilon");
  number("--clip", o.clip, "Maximum gradient norm; 0: none");
  parser.add_option(
      "--dropout",
      o.dropout,
      "Dropout probability, replaces those of config.json");
  parser.add_flag(
      "--linearized",
      o.linearized,
      "Train the first-order model at the starting weights, without dropout");
}

void add_fisher(CLI::App& parser, TrainOptions& o) {
  parser
      .add_option_function<std::string>(
          "--fisher",
          [&o](const std::string& name) {
            o.fisher = parse_training_fisher(name);
          },
          "Fisher of the last epoch: none, adam, online_mc or online_mc_eval")
      ->default_str(training_fisher_name(o.fisher));
  parser
      .add_option(
          "--fisher-interval",
          o.fisher_interval,
          "online_mc, online_mc_eval: an extra backward pass every N steps")
      ->capture_default_str();
  add_storage(parser, "--fisher-storage", o.fisher_storage);
  parser.add_option(
      "--proximal",
      o.proximal,
      "Fishers of the starting model and of models of earlier tasks: adds the "
      "proximal term 1/2 |theta - theta0|^2, weighted by the sum of Ns Fs / N, "
      "to the mean loss");
  parser
      .add_option(
          "--proximal-weight", o.proximal_weight, "Weight of the proximal term")
      ->needs(parser.get_option("--proximal"))
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
