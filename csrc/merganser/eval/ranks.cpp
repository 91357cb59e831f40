#include "merganser/eval/ranks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "merganser/base/error.h"
#include "merganser/base/interrupt.h"
#include "merganser/base/quote.h"
#include "merganser/text/batching.h"

namespace merganser {
namespace {

using Bytes = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;
constexpr auto kPoll = std::chrono::milliseconds(20);
constexpr auto kStart = std::chrono::seconds(60); // of all ranks
constexpr size_t kPart = 4 << 20; // bytes; the store takes up to 8 MiB

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int64_t number(const char* name, int64_t least, int64_t most) {
  const std::string text = variable(name);
  int64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() ||
      value < least || value > most) {
    throw InputError(fmt::format(
        "WORLD_SIZE is set: expected {} from {} to {} in the environment, as "
        "torchrun sets it, got {}",
        name,
        least,
        most,
        text.empty() ? "none" : quote(text)));
  }
  return value;
}

std::string first_line(const std::exception& error) {
  const std::string_view text = error.what();
  return std::string(text.substr(0, text.find('\n')));
}

} // namespace

// Messages from other ranks to rank 0 through the job's store. A sender waits
// until rank 0 has taken its message: the next one has the same key.
struct Ranks::Store {
  c10::intrusive_ptr<c10d::TCPStore> client;
  std::string prefix; // of the keys
  int64_t own;

  void send(const Bytes& message) {
    const std::string key = key_of(own);
    const size_t parts =
        std::max<size_t>(1, (message.size() + kPart - 1) / kPart);
    for (size_t i = 0; i < parts; ++i) {
      const auto begin = message.begin() + static_cast<int64_t>(i * kPart);
      const auto length = std::min(kPart, message.size() - i * kPart);
      Bytes part(begin, begin + static_cast<int64_t>(length));
      part.push_back(i + 1 < parts ? 1 : 0); // another part follows
      call([&] { client->set(key, part); });
      wait([&] { return !client->check({key}); });
    }
  }

  // The next message of a rank; nothing if none comes until `end`.
  std::optional<Bytes> receive(
      int64_t rank,
      Clock::time_point end = Clock::time_point::max()) {
    const std::string key = key_of(rank);
    Bytes message;
    bool follows = true;
    while (follows) {
      if (!wait([&] { return client->check({key}); }, end)) {
        return std::nullopt;
      }
      const Bytes part = call([&] { return client->get(key); });
      call([&] { client->deleteKey(key); });
      follows = part.back() == 1;
      message.insert(message.end(), part.begin(), part.end() - 1);
    }
    return message;
  }

 private:
  std::string key_of(int64_t rank) const {
    return fmt::format("{}/{}", prefix, rank);
  }

  template <typename Function>
  bool wait(
      const Function& done,
      Clock::time_point end = Clock::time_point::max()) {
    while (!call(done)) {
      if (Clock::now() >= end) {
        return false;
      }
      check_interrupt();
      std::this_thread::sleep_for(kPoll);
    }
    return true;
  }

  template <typename Function>
  auto call(const Function& function) -> decltype(function()) {
    try {
      return function();
    } catch (const std::exception& error) {
      throw Error(fmt::format(
          "rank {} lost the store of its job, which ends with the process that "
          "keeps it: {}",
          own,
          first_line(error)));
    }
  }
};

Ranks::Ranks(int64_t rank, int64_t size, std::unique_ptr<Store> store)
    : rank_(rank), size_(size), store_(std::move(store)) {}
Ranks::~Ranks() = default;
Ranks::Ranks(Ranks&&) noexcept = default;

Ranks Ranks::from_environment() {
  if (variable("WORLD_SIZE").empty()) {
    return {0, 1, nullptr};
  }
  const int64_t size = number("WORLD_SIZE", 1, 1 << 20);
  if (size == 1) {
    return {0, 1, nullptr};
  }
  const int64_t rank = number("RANK", 0, size - 1);
  const std::string host = variable("MASTER_ADDR");
  if (host.empty()) {
    throw InputError(
        "WORLD_SIZE is set: expected MASTER_ADDR in the environment, as "
        "torchrun sets it, got none");
  }
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(number("MASTER_PORT", 1, UINT16_MAX));
  options.waitWorkers = false;
  options.isServer =
      rank == 0 && variable("TORCHELASTIC_USE_AGENT_STORE") != "True";
  auto store = std::make_unique<Store>();
  store->own = rank;
  // The agent's store outlives processes that it starts again.
  store->prefix =
      fmt::format("merganser/eval/{}", variable("TORCHELASTIC_RESTART_COUNT"));
  try {
    store->client = c10::make_intrusive<c10d::TCPStore>(host, options);
  } catch (const std::exception& error) {
    throw Error(fmt::format(
        "cannot reach the store of rank {}'s job at {}:{}: {}",
        rank,
        host,
        options.port,
        first_line(error)));
  }
  Ranks ranks(rank, size, std::move(store));
  ranks.meet();
  return ranks;
}

void Ranks::meet() {
  if (rank_ != 0) {
    store_->send({});
    return;
  }
  const Clock::time_point end = Clock::now() + kStart;
  for (int64_t rank = 1; rank < size_; ++rank) {
    if (!store_->receive(rank, end)) {
      throw Error(fmt::format(
          "rank {} of {} has not come after {} seconds; unset WORLD_SIZE to "
          "evaluate in one process",
          rank,
          size_,
          kStart.count()));
    }
  }
}

void Ranks::compare(const std::string& inputs) {
  const Bytes own(inputs.begin(), inputs.end());
  if (rank_ != 0) {
    store_->send(own);
    return;
  }
  for (int64_t rank = 1; rank < size_; ++rank) {
    if (store_->receive(rank) != own) {
      throw InputError(fmt::format(
          "rank {} has a model, data or options that differ from those of "
          "rank 0",
          rank));
    }
  }
}

std::vector<int64_t> Ranks::positions(
    const Dataset& data,
    int64_t batch_size,
    int64_t rank) const {
  const auto batches = sorted_batches(data, batch_size);
  std::vector<int64_t> positions;
  for (size_t i = rank; i < batches.size(); i += size_) {
    positions.insert(positions.end(), batches[i].begin(), batches[i].end());
  }
  return positions;
}

Dataset Ranks::share(const Dataset& data, int64_t batch_size) const {
  Dataset part;
  part.path = data.path;
  for (const int64_t position : positions(data, batch_size, rank_)) {
    part.ids.push_back(data.ids[position]);
    part.labels.push_back(data.labels[position]);
    if (!data.token_types.empty()) {
      part.token_types.push_back(data.token_types[position]);
    }
  }
  return part;
}

at::Tensor Ranks::gather(
    const at::Tensor& rows,
    const Dataset& data,
    int64_t batch_size) {
  const at::Tensor own = rows.contiguous();
  if (rank_ != 0) {
    const auto* begin = static_cast<const uint8_t*>(own.const_data_ptr());
    store_->send({begin, begin + own.nbytes()});
    return {};
  }
  at::Tensor all = at::empty({data.size(), rows.size(1)}, rows.options());
  for (int64_t rank = 0; rank < size_; ++rank) {
    const std::vector<int64_t> rows_of = positions(data, batch_size, rank);
    at::Tensor part = own;
    if (rank != 0) {
      const Bytes message = store_->receive(rank).value();
      part = at::empty({std::ssize(rows_of), rows.size(1)}, rows.options());
      if (message.size() != part.nbytes()) {
        throw Error(fmt::format(
            "expected {} bytes of rank {}, got {}",
            part.nbytes(),
            rank,
            message.size()));
      }
      std::ranges::copy(
          message, static_cast<uint8_t*>(part.mutable_data_ptr()));
    }
    all.index_copy_(0, at::tensor(rows_of, at::kLong), part);
  }
  return all;
}

} // namespace merganser
