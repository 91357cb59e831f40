#include "merganser/app/program.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/base/interrupt.h"
#include "merganser/base/quote.h"
#include "merganser/base/version.h"

namespace merganser::app {
namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kBadInput = 2;

int fail(int code, std::string_view message) {
  fmt::print(stderr, "merganser: {}\n", message);
  return code;
}

std::string help() {
  std::string text =
      "Usage: merganser COMMAND ...\n"
      "\n"
      "Fine-tunes text encoders, estimates their Fishers and merges "
      "checkpoints.\n"
      "\n"
      "Commands (merganser COMMAND --help lists the arguments):\n";
  for (const auto& command : kCommands) {
    text += fmt::format("  {:<9} {}\n", command.name, command.summary);
  }
  text +=
      "\n"
      "All commands have --json, --quiet, --verbose, --help and --version.\n"
      "Exit codes: 0 success, 1 failure, 2 invalid arguments or input.\n";
  return text;
}

// Output that does not reach its file (`> file` on a full disk) is a failure,
// not an empty success.
void flush_output() {
  if (std::fflush(stdout) != 0) {
    throw Error(
        fmt::format("cannot write to standard output: {}", strerror(errno)));
  }
}

// CLI11's error messages in this program's words.
std::string sentence(const CLI::App& parser, const CLI::ParseError& error) {
  std::string text = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    std::vector<std::string> extra;
    for (const std::string& argument : parser.remaining()) {
      extra.push_back(quote(argument));
    }
    return fmt::format(
        "unexpected argument{} {}",
        extra.size() == 1 ? "" : "s",
        fmt::join(extra, ", "));
  }
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr &&
      text.ends_with(" missing")) {
    return text.substr(0, text.find(": ")) + ": expected a value";
  }
  constexpr std::string_view kConversion = "Could not convert: ";
  constexpr std::string_view kIs = " = ";
  if (const size_t is = text.find(kIs);
      text.starts_with(kConversion) && is != text.npos) {
    const std::string name =
        text.substr(kConversion.size(), is - kConversion.size());
    const CLI::Option* option = parser.get_option_no_throw(name);
    const bool whole =
        option != nullptr && option->get_type_name().find("INT") != text.npos;
    return fmt::format(
        "{}: expected a {}number, got {}",
        name,
        whole ? "whole " : "",
        quote(text.substr(is + kIs.size())));
  }
  return text;
}

int parse_and_work(
    const CommandDefinition& command,
    std::string_view summary,
    std::vector<std::string> arguments) {
  CLI::App parser(
      std::string(summary), fmt::format("merganser {}", command.name));
  CommonOptions common;
  const Work work = command.define(parser, common);
  parser.add_flag("-q,--quiet", common.quiet, "No progress on stderr");
  parser.add_flag("-v,--verbose", common.verbose, "More details on stderr");
  parser.add_flag("--json", common.json, "Print the result as JSON on stdout");
  parser.set_version_flag(
      "--version", fmt::format("merganser {}", merganser::version()));
  parser.set_help_flag("-h,--help", "Print this help");
  parser.get_formatter()->column_width(34);
  try {
    std::reverse(arguments.begin(), arguments.end()); // as CLI11 expects
    parser.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", parser.help());
    flush_output();
    return kDone;
  } catch (const CLI::CallForVersion&) {
    fmt::print("merganser {}\n", merganser::version());
    flush_output();
    return kDone;
  } catch (const CLI::ParseError& error) {
    return fail(
        kBadInput,
        fmt::format(
            "{} (see merganser {} --help)",
            sentence(parser, error),
            command.name));
  }
  install_interrupt_handler();
  work();
  flush_output();
  return kDone;
}

// Exceptions of other libraries may have a stack trace after the first line.
std::string_view first_line(std::string_view text) {
  return text.substr(0, text.find('\n'));
}

} // namespace

int run_program(
    int argc,
    char** argv,
    std::span<const CommandDefinition> commands,
    int (*elsewhere)(char** argv)) try {
  // The command is the first argument that is not an option.
  char** const end = argv + argc;
  char** const command = std::find_if(
      argv + std::min(argc, 1), end, [](char* a) { return a[0] != '-'; });
  if (command == end) {
    const std::string_view option = argc > 1 ? argv[1] : "";
    if (option == "--version") {
      fmt::print("merganser {}\n", merganser::version());
    } else if (option == "--help" || option == "-h") {
      fmt::print("{}", help());
    } else {
      return fail(
          kBadInput, "no command given; merganser --help lists the commands");
    }
    flush_output();
    return kDone;
  }
  std::rotate(argv + 1, command, command + 1);
  const std::string_view name = argv[1];
  const auto info = std::find_if(
      std::begin(kCommands), std::end(kCommands), [&](const CommandInfo& row) {
        return row.name == name;
      });
  if (info == std::end(kCommands)) {
    std::vector<std::string_view> names;
    for (const auto& row : kCommands) {
      names.push_back(row.name);
    }
    return fail(
        kBadInput,
        fmt::format(
            "unknown command '{}'; available: {}",
            name,
            fmt::join(names, ", ")));
  }
  for (const auto& definition : commands) {
    if (definition.name == name) {
      return parse_and_work(definition, info->summary, {argv + 2, end});
    }
  }
  return elsewhere(argv);
} catch (const InputError& error) {
  return fail(kBadInput, error.what());
} catch (const Error& error) {
  return fail(kFailed, error.what());
} catch (const std::system_error& error) {
  // Thrown by fmt for standard output, the only file printed to.
  constexpr std::string_view kPrinting = "cannot write to file";
  return fail(
      kFailed,
      std::string_view(error.what()).starts_with(kPrinting)
          ? "cannot write to standard output: " + error.code().message()
          : first_line(error.what()));
} catch (const std::bad_alloc&) {
  return fail(kFailed, "not enough memory");
} catch (const std::exception& error) {
  return fail(kFailed, first_line(error.what()));
}

} // namespace merganser::app
