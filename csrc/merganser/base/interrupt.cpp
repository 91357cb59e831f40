#include "merganser/base/interrupt.h"

#include <atomic>
#include <csignal>

#include <fmt/format.h>

#include "merganser/base/error.h"

namespace merganser {

namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

std::atomic<int> received = 0; // the first signal
static_assert(std::atomic<int>::is_always_lock_free);
std::atomic<InterruptHook> hook = nullptr;

void on_signal(int signal) {
  received = signal;
  for (const int s : kSignals) {
    struct sigaction action {};
    ::sigaction(s, nullptr, &action);
    if (action.sa_handler == on_signal) {
      std::signal(s, SIG_DFL);
    }
  }
}

const char* signal_name(int signal) {
  switch (signal) {
    case SIGINT:
      return "SIGINT, Ctrl-C";
    case SIGTERM:
      return "SIGTERM";
    default:
      return "SIGHUP";
  }
}

} // namespace

void install_interrupt_handler() {
  received = 0;
  for (const int signal : kSignals) {
    struct sigaction action {};
    ::sigaction(signal, nullptr, &action);
    if (action.sa_handler == SIG_IGN) {
      continue;
    }
    action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    ::sigaction(signal, &action, nullptr);
  }
  std::signal(SIGXFSZ, SIG_IGN);
}

void check_interrupt() {
  if (const InterruptHook function = hook) {
    function();
  } else if (const int signal = received) {
    throw Interrupted(fmt::format(
        "interrupted ({}); no incomplete output was left",
        signal_name(signal)));
  }
}

void set_interrupt_hook(InterruptHook function) {
  hook = function;
}

} // namespace merganser
